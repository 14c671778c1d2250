/**
 * The program that becomes the sidecar. As root it enters the bottle's network namespace, makes every address local there, opens the
 * listeners, goes back, gives up the user, and executes Node with the listeners as open files. It is Perl because that is what
 * every Debian and Ubuntu system has (`perl-base` is Essential) and because `syscall` reaches the kernel without a native module.
 *
 * Arguments are KEY=VALUE up to `--`, then the program and its arguments; `LISTENERS` among them becomes the list of open files:
 * `tcp/PORT/FD`, `udp4/53/FD`, `udp6/53/FD`, `snmp/0/FD` and `snmp6/0/FD` (the namespace's counters), `ns/0/FD`.
 *
 *     network=new | network=PATH    a new namespace, or the one at PATH
 *     ports=80,443,…                TCP ports, on which IPv4 and IPv6 connections to every address arrive
 *     uid=N parent=PID              who it becomes, and whose death is its own
 *     reach=PATH                    files below PATH can be read also when a folder above it is closed to others; may be given again
 *
 * Open files besides Node's channel are closed first. When the listeners are open it says so on Node's channel, with the descriptor of the namespace; all else Node says.
 *
 * IPv6 questions are answered on ::1 alone: an answer to another address would come from ::1 (every IPv6 source address in the
 * namespace is), and the asker would not take it. To other addresses they are refused at once.
 */
export const PROLOGUE = String.raw`
use strict; use warnings; no warnings 'exec'; use POSIX (); use Socket; use Fcntl;
my (%o, @reach);
while (@ARGV) {
  my $word = shift @ARGV;
  last if $word eq '--';
  my ($key, $value) = split /=/, $word, 2;
  if ($key eq 'reach') { push @reach, $value } else { $o{$key} = $value }
}
sub fail { print STDERR "$_[0]: $!\n"; POSIX::_exit(125) }
# Files that the supervisor was started with are none of the sidecar's business.
opendir(my $list, '/proc/self/fd') or fail('open files');
my @inherited = grep { /^[0-9]+$/ && $_ > 2 && $_ != ($ENV{NODE_CHANNEL_FD} // 2) } readdir $list;
POSIX::close($_) for @inherited;
my (undef, undef, undef, undef, $machine) = POSIX::uname();
my %number = $machine eq 'x86_64'
  ? (unshare => 272, setns => 308, prctl => 157, prlimit => 302, mount => 165)
  : (unshare => 97, setns => 268, prctl => 167, prlimit => 261, mount => 40);
my ($NEWNET, $NEWNS) = (0x40000000, 0x20000);
# What is opened from here on stays open in the sidecar; the rest is closed by hand.
$^F = 2;
sysopen(my $home, '/proc/self/ns/net', O_RDONLY) or fail('own network namespace');
$^F = 1023;
my $inside;
if ($o{network} eq 'new') {
  syscall($number{unshare}, $NEWNET) == 0 or fail('new network namespace');
  sysopen($inside, '/proc/self/ns/net', O_RDONLY) or fail('new network namespace');
} else {
  sysopen($inside, $o{network}, O_RDONLY) or fail('network namespace');
  syscall($number{setns}, fileno($inside), $NEWNET) == 0 or fail('network namespace');
  my ($ours, $theirs) = map { (stat $_)[1] } $home, $inside;
  if ($ours == $theirs) { $! = 22; fail('the namespace of the host is no bottle') }
}

# rtnetlink(7): lo (index 1) up, and every address local to it.
$^F = 2;
socket(my $netlink, 16, SOCK_RAW, 0) or fail('netlink');
$^F = 1023;
my $sequence = 0;
sub ask {
  my ($type, $flags, $body) = @_;
  send($netlink, pack('LSSLL', 16 + length $body, $type, $flags | 5, ++$sequence, 0) . $body, 0) or return $!;
  recv($netlink, my $answer, 8192, 0);
  my (undef, $kind, undef, undef, undef, $error) = unpack('LSSLLl', $answer);
  return $! = -$error;
}
my $up = ask(16, 0, pack('CxSlLL', 0, 0, 1, 1, 1));
$up == 0 or fail('lo');
my ($CREATE_REPLACE, $TABLE_LOCAL, $BOOT, $LOCAL) = (0x500, 255, 3, 2);
my $oif = pack('SSL', 8, 4, 1);
ask(24, $CREATE_REPLACE, pack('CCCCCCCCL', AF_INET, 0, 0, 0, $TABLE_LOCAL, $BOOT, 254, $LOCAL, 0) . $oif) == 0
  or fail('IPv4 route');
# Container engines let everybody send echo requests, which every address here would answer.
my $echo = '/proc/sys/net/ipv4/ping_group_range';
if (-e $echo) {
  open(my $set, '>', $echo) or fail('echo requests');
  defined syswrite($set, '1 0') or fail('echo requests');
  close $set;
}
my $six = -e '/proc/net/if_inet6';
if ($six) {
  for my $key (qw(all lo)) {
    my $file = "/proc/sys/net/ipv6/conf/$key/disable_ipv6";
    if (open(my $set, '>', $file)) { syswrite $set, '0'; close $set }
  }
  ask(24, $CREATE_REPLACE, pack('CCCCCCCCL', AF_INET6, 0, 0, 0, $TABLE_LOCAL, $BOOT, 0, $LOCAL, 0) . $oif) == 0
    or fail('IPv6 route');
}
close $netlink;

my (@open, @kept);
sub listener {
  my ($name, $port, $kind, $family, $address) = @_;
  socket(my $socket, $family, $kind, 0) or fail("socket $name");
  if ($family == AF_INET6) {
    my $only = $kind == SOCK_STREAM ? 0 : 1;
    setsockopt($socket, 41, 26, pack('l', $only)) or fail("socket $name");
  }
  my $name_of = $family == AF_INET6
    ? Socket::pack_sockaddr_in6($port, Socket::inet_pton(AF_INET6, $address))
    : pack_sockaddr_in($port, inet_aton($address));
  bind($socket, $name_of) or fail("port $port ($name)");
  if ($kind == SOCK_STREAM) { listen($socket, 511) or fail("port $port ($name)") }
  push @kept, $socket;
  push @open, "$name/$port/" . fileno $socket;
}
for my $port (split /,/, $o{ports}) {
  listener('tcp', $port, SOCK_STREAM, $six ? (AF_INET6, '::') : (AF_INET, '0.0.0.0'));
}
listener('udp4', 53, SOCK_DGRAM, AF_INET, '0.0.0.0');
listener('udp6', 53, SOCK_DGRAM, AF_INET6, '::1') if $six;
# An open file goes on telling of the namespace it was opened in.
for my $name (qw(snmp snmp6)) {
  next unless -e "/proc/thread-self/net/$name";
  sysopen(my $counters, "/proc/thread-self/net/$name", O_RDONLY) or fail($name);
  push @kept, $counters;
  push @open, "$name/0/" . fileno $counters;
}
push @open, 'ns/0/' . fileno $inside;
syscall($number{setns}, fileno($home), $NEWNET) == 0 or fail('back to the network of the host');
close $home;
# One line of JSON on Node's channel: whoever waits for the namespace need not wait for Node.
my $opened = sprintf qq({"type":"opened","namespace":%d}\n), fileno $inside;
defined $ENV{NODE_CHANNEL_FD} && defined POSIX::write($ENV{NODE_CHANNEL_FD}, $opened, length $opened) or fail('channel');

# Folders that only root may pass (such as /root) get a stand-in that shows nothing but what is needed. Only this process sees it.
my %closed;
for my $path (@reach) {
  my $above = '';
  for my $part (split m{/}, substr $path, 1) {
    $above .= "/$part";
    last if $above eq $path;
    my $mode = (stat $above)[2];
    next if !defined $mode || $mode & 0001;
    push @{$closed{$above}}, $path;
    last;
  }
}
if (%closed) {
  syscall($number{unshare}, $NEWNS) == 0 or fail('mount namespace');
  my ($none, $root, $tmpfs, $mode, $empty) = ('none', '/', 'tmpfs', 'mode=0755,size=64k', '');
  syscall($number{mount}, $none, $root, $empty, 0x44000, 0) == 0 or fail('private mounts');
  # Opened in this mount namespace, so that they can be bound, and before anything is hidden.
  $^F = 2;
  my %file;
  for my $path (map { @$_ } values %closed) {
    sysopen($file{$path}, $path, O_RDONLY) or fail($path);
  }
  for my $folder (sort keys %closed) {
    my $place = $folder;
    syscall($number{mount}, $none, $place, $tmpfs, 0x6, $mode) == 0 or fail("stand-in of $folder");
    for (@{$closed{$folder}}) {
      my $path = $_;
      my $file = $file{$path};
      my $directory = -d $file;
      my $above = $folder;
      for my $part (split m{/}, substr $path, length($folder) + 1) {
        $above .= "/$part";
        if ($above eq $path && !$directory) { open(my $new, '>', $above) or fail($above) }
        elsif (!-d $above) { mkdir($above, 0755) or fail($above) }
      }
      my $from = '/proc/self/fd/' . fileno $file;
      syscall($number{mount}, $from, $path, $empty, 0x5000, 0) == 0 or fail("stand-in of $path");
    }
  }
}

sub limit {
  my ($which, $soft, $hard) = @_;
  my $value = pack('QQ', $soft, $hard);
  syscall($number{prlimit}, 0, $which, $value, 0) == 0 or fail('limits');
}
# A core limit of 1 byte also keeps the kernel from handing memory to a program of core_pattern (core(5)).
limit(4, 1, 1);
limit(7, 8192, 8192);
limit(6, 64, 64);
my $id = $o{uid} + 0;
$) = "$id $id";
POSIX::setgid($id) && POSIX::setuid($id) or fail('user');
$< == $id && $> == $id or fail('user');
syscall($number{prctl}, 38, 1, 0, 0, 0) == 0 or fail('no new privileges');
syscall($number{prctl}, 1, 9, 0, 0, 0) == 0 or fail('end with the parent');
POSIX::_exit(125) if getppid() != $o{parent};
chdir '/';
my $list = join ',', @open;
my @command = map { $_ eq 'LISTENERS' ? $list : $_ } @ARGV;
%ENV = map { $_ => $ENV{$_} } grep { /^NODE_CHANNEL_/ } keys %ENV;
exec { $command[0] } @command;
fail($command[0]);
`;
