/**
 * Tries connections from inside a network namespace and says what became of them. It enters the namespace as root and
 * gives all rights up before it tries anything. Standard input, to its end: a line with the namespace's path, and lines with
 * probes; when there is none it ends:
 *
 *     tcp NAME ADDRESS PORT LIMIT_MS -            connects
 *     ask NAME ADDRESS PORT LIMIT_MS HEX          connects, sends the bytes, and reads the first line of the answer
 *     dns NAME ADDRESS PORT LIMIT_MS HEX          sends a datagram and reads the answer's header
 *     pass NAME ADDRESS PORT LIMIT_MS FD          connects, and passes bytes on between it and an open socket
 *
 * Each but the last gives a line `NAME OUTCOME MS DETAIL`, OUTCOME being `connected`, `answered` (DETAIL in hexadecimal), `failed`
 * (DETAIL: the errno's name or number, or EOF) or `slow`. All of them run at the same time.
 */
export const PROBE_PROGRAM = String.raw`
use strict; use warnings; no warnings 'exec';
use Socket qw(:DEFAULT inet_pton pack_sockaddr_in6);
use Errno (); use Fcntl; use POSIX ();
my ($setns, $prctl) = (POSIX::uname())[4] eq 'aarch64' ? (268, 167) : (308, 157);
my $ticks = POSIX::sysconf(POSIX::_SC_CLK_TCK());
sub now { return (POSIX::times())[0] * 1000 / $ticks }

chomp(my @lines = <STDIN>);
exit 0 unless @lines;
my $path = shift @lines;
open(my $ns, '<', $path) or die "$path: $!\n";
syscall($setns, fileno $ns, 0x40000000) == 0 or die "setns: $!\n";
close $ns;
my $nobody = 65534;
syscall($prctl, 38, 1, 0, 0, 0) == 0 or die "no_new_privs: $!\n";
$) = "$nobody $nobody";
POSIX::setgid($nobody) && POSIX::setuid($nobody) or die "setuid: $!\n";
die "root is still there\n" if POSIX::setuid(0) || $) ne "$nobody $nobody";

sub named {
  my $n = $_[0] + 0;
  for my $name (qw(ECONNREFUSED ENETUNREACH EHOSTUNREACH EAFNOSUPPORT EADDRNOTAVAIL EACCES EPERM ETIMEDOUT ECONNRESET)) {
    return $name if Errno->can($name) && Errno->can($name)->() == $n;
  }
  return $n;
}
my %running;
sub finish {
  my ($probe, $outcome, $detail) = @_;
  close $probe->{pipe} if $probe->{pipe};
  close $probe->{socket} if $probe->{socket};
  delete $running{$probe->{name}};
  return if $probe->{kind} eq 'pass';
  syswrite STDOUT, join(' ', $probe->{name}, $outcome, int(now() - $probe->{began}), $detail) . "\n";
}
sub connected {
  my ($probe) = @_;
  return finish($probe, 'connected', '-') if $probe->{kind} eq 'tcp';
  $probe->{state} = 'reading';
  if ($probe->{kind} eq 'pass') {
    # What passes is little: whoever does not take it holds up none but this program.
    fcntl $_, F_SETFL, O_RDWR for $probe->{socket}, $probe->{pipe};
    return;
  }
  my $bytes = pack 'H*', $probe->{hex};
  my $sent = syswrite $probe->{socket}, $bytes;
  finish($probe, 'failed', defined $sent ? 'EAGAIN' : named($!)) if !defined $sent || $sent < length $bytes;
}
sub answered {
  my ($probe) = @_;
  my $n = sysread $probe->{socket}, $probe->{answer}, 4096, length $probe->{answer};
  return if !defined $n && ($!{EAGAIN} || $!{EINTR});
  return finish($probe, 'failed', named($!)) unless defined $n;
  my $answer = $probe->{answer};
  return finish($probe, 'failed', 'EOF') if !$n && $answer eq '';
  if ($probe->{kind} eq 'dns') { $answer = substr $answer, 0, 12 }
  else {
    return if $n && length $answer <= 4096 && index($answer, "\n") < 0;
    $answer =~ s/\r?\n.*//s;
    $answer = substr $answer, 0, 200;
  }
  finish($probe, 'answered', unpack('H*', $answer) || '-');
}
sub passed {
  my ($probe, $from, $to) = @_;
  my $n = sysread $from, my $bytes, 65536;
  return if !defined $n && ($!{EAGAIN} || $!{EINTR});
  for (my $done = 0; $n && $done < $n;) {
    my $sent = syswrite $to, $bytes, $n - $done, $done;
    if (defined $sent) { $done += $sent } elsif (!$!{EINTR}) { $n = 0 }
  }
  finish($probe, 'failed', '-') unless $n;
}
$SIG{PIPE} = 'IGNORE';
for (@lines) {
  my %probe = (answer => '', state => 'connecting', began => now());
  @probe{qw(kind name address port limit hex)} = split / /;
  my $probe = $running{$probe{name}} = \%probe;
  if ($probe{kind} eq 'pass' && !open($probe->{pipe}, '+<&=', $probe{hex})) { finish($probe, 'failed', '-'); next }
  my $six = index($probe{address}, ':') >= 0;
  my $family = $six ? AF_INET6 : AF_INET;
  my $packed = inet_pton($family, $probe{address});
  if (!defined $packed) { finish($probe, 'failed', 'EINVAL'); next }
  my $to = $six ? pack_sockaddr_in6($probe{port}, $packed) : pack_sockaddr_in($probe{port}, $packed);
  if (!socket $probe->{socket}, $family, $probe{kind} eq 'dns' ? SOCK_DGRAM : SOCK_STREAM, 0) {
    finish($probe, 'failed', named($!));
    next;
  }
  fcntl $probe->{socket}, F_SETFL, O_RDWR | O_NONBLOCK;
  if (connect $probe->{socket}, $to) { connected($probe) }
  elsif (!$!{EINPROGRESS}) { finish($probe, 'failed', named($!)) }
}
while (%running) {
  my ($reading, $writing, $wait) = ('', '', 60_000);
  for my $probe (values %running) {
    my $left = $probe->{began} + $probe->{limit} - now();
    if ($left <= 0) { finish($probe, 'slow', '-'); next }
    $wait = $left if $left < $wait;
    vec($probe->{state} eq 'reading' ? $reading : $writing, fileno $probe->{socket}, 1) = 1;
    vec($reading, fileno $probe->{pipe}, 1) = 1 if $probe->{pipe} && $probe->{state} eq 'reading';
  }
  last unless %running;
  select($reading, $writing, undef, $wait / 1000 + 0.01) > 0 or next;
  for my $probe (values %running) {
    my $fd = fileno $probe->{socket};
    if ($probe->{kind} eq 'pass' && $probe->{state} eq 'reading') {
      my ($socket, $pipe) = @$probe{qw(socket pipe)};
      passed($probe, $pipe, $socket) if vec($reading, fileno $pipe, 1);
      passed($probe, $socket, $pipe) if $running{$probe->{name}} && vec($reading, $fd, 1);
      next;
    }
    if ($probe->{state} eq 'reading') { answered($probe) if vec($reading, $fd, 1); next }
    next unless vec($writing, $fd, 1);
    my $error = unpack 'i', getsockopt($probe->{socket}, SOL_SOCKET, SO_ERROR);
    if ($error) { finish($probe, 'failed', named($error)) } else { connected($probe) }
  }
}
# Nothing that perl would do at the end is wanted.
POSIX::_exit(0);
`;
