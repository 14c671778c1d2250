import { PERL_MOUNTS } from '../perl-mounts.ts';
import { PERL_CONVERSATION } from './perl-conversation.ts';
import { PERL_COPY_DATA } from './perl-copy-data.ts';
import { PERL_FIRST_PROCESS } from './perl-first-process.ts';
import { MOST_TEMPLATE_BYTES } from './volume-template.ts';

/** Descriptors by which the set-up program keeps what others join, below /proc/PID/fd; above all it otherwise has. */
export const SANDBOX_FDS = {
  user: 500,
  mount: 501,
  process: 502,
  network: 503,
  ipc: 504,
  uts: 505,
  cgroup: 506,
  upper: 507,
} as const;

export const SETUP_STREAMS = ['ignore', 'ignore', 'pipe'] as const;

/** How long what was killed in a container may take to be gone, in seconds. */
const END_CONTAINER_S = 5;

/**
 * Builds a sandbox, started as root. Three processes: one in the process namespace of the host that waits; process 1
 * of a private mount and process namespace, which mounts, holds what the sandbox is made of and gives it up as
 * soon as the launcher is gone; and process 1 of the guest's process namespace, which has no right at all and only
 * takes up orphans. When the second ends, for whatever reason, the kernel ends every process and mount of the sandbox.
 * Nothing of the image runs here. In a container, whose first process and process namespace are there already, the third
 * one only mounts, the second one waits in the process namespace of the host, and it kills the container in the end.
 *
 * The conversation (see perl-conversation.ts), where WORDs are KEY=HEX:
 *
 *     < setup WORD...
 *     > process PID                        host id of the second process
 *     > files PASSWD GROUP                 only with ask=1
 *     < user UID GID
 *     > ready USER-NAMESPACE | fail STEP REASON
 *     > ended REASON
 *
 * End of file on 3 at any time ends the sandbox.
 */
export const SETUP_PROGRAM = String.raw`
my $container;
sub gone { end_container(); quit(125) }
${PERL_MOUNTS}
${PERL_CONVERSATION}
${PERL_COPY_DATA}
my $log;
sub fail {
  my ($step, $why) = @_;
  if ($log) {
    my ($size, $tail) = (-s $log, '');
    sysseek $log, ($size > 2000 ? $size - 2000 : 0), 0;
    sysread $log, $tail, 2000;
    $why .= "\n$tail" if $tail ne '';
  }
  report('fail', hexed($step), hexed($why));
  quit(125);
}
$SIG{__DIE__} = sub { fail('program', $_[0]) };
# Everything in the container ends with its first process, before a descriptor of that one tells that it has ended.
sub end_container {
  return if !defined $container;
  syscall(424, $container + 0, 9, 0, 0);
  my $bits = '';
  vec($bits, $container, 1) = 1;
  select $bits, undef, undef, ${END_CONTAINER_S};
}
sub start {
  my @command = @_;
  my $pid = fork;
  fail('fork', "$!") unless defined $pid;
  return $pid if $pid;
  die_with_parent();
  new_session();
  open STDIN, '<', '/dev/null';
  open STDOUT, '>&', $log;
  open STDERR, '>&', $log;
  exec { $command[0] } @command;
  print STDERR "$command[0]: $!\n";
  quit(127);
}
sub must_mount { my ($step, @mount) = @_; mount_at(@mount) or fail($step, "$mount[2] on $mount[1]: $!") }
sub new_folder { my ($path, $mode) = @_; mkdir $path, $mode or fail('folder', "$path: $!") }
sub write_file {
  my ($path, $text) = @_;
  my $file;
  open($file, '>', $path) && write_all($file, $text) && close $file or fail('file', "$path: $!");
}

die_with_parent();
not_dumpable();
close_from(4);
new_session();
umask 022;
$0 = 'decant-sandbox';
my (%o, @mounts, @groups);
for my $word (expect('setup')) {
  my ($key, $value) = split /=/, $word, 2;
  $value = unhex($value);
  if ($key eq 'mount') { push @mounts, [split /\0/, $value] }
  elsif ($key eq 'group') { push @groups, $value }
  else { $o{$key} = $value }
}
my ($dir, $base) = ($o{dir}, $o{base} + 0);

# What is named by paths of the host is opened while they mean what they say.
my ($host_net, @group_files);
if (defined $o{net}) { open($host_net, '<', $o{net}) or fail('network namespace', "$o{net}: $!") }
for my $file (@groups) { open(my $fh, '>', $file) or fail('control group', "$!"); push @group_files, $fh }
my ($template, $keep);
if (defined $o{template}) { open($template, '<', $o{template}) or fail('volume', "$o{template}: $!") }
if (defined $o{keep}) { open($keep, '+<', $o{keep}) or fail('volume', "$o{keep}: $!") }
my %theirs;
if (defined $o{container}) {
  my ($pid, $start) = split / /, $o{container};
  my $process = syscall(434, $pid + 0, 0);
  fail('container', "its first process: $!") if $process < 0;
  for my $kind (qw(pid ipc uts)) { open($theirs{$kind}, '<', "/proc/$pid/ns/$kind") or fail('container', "$kind: $!") }
  # The number has meant the same process all the while.
  open(my $file, '<', "/proc/$pid/stat") or fail('container', "$!");
  sysread $file, my $stat, 4096;
  fail('container', 'its first process has ended') if (split / /, substr $stat, rindex($stat, ')') + 2)[19] ne $start;
  $container = $process;
}

# A process namespace of our own would hide those of a container.
leave_namespaces($NEWNS | (%theirs ? 0 : $NEWPID)) or fail('namespaces', "$!");
my $inner = fork;
fail('fork', "$!") unless defined $inner;
if ($inner) {
  close_fd($_) for 0 .. 3;
  waitpid $inner, 0;
  quit(0);
}
die_with_parent();
# /proc is still the host's and tells our number there. The waiting process could say it too, but not surely before 'ready'.
my $host_pid = readlink '/proc/self' or fail('process table', "$!");
report('process', $host_pid);
must_mount('private mounts', 'none', '/', 'none', 0x44000, '');
for my $mount (@mounts) {
  next if $mount->[0] eq 'tmpfs';
  sysopen(my $fh, $mount->[1], $O_PATH | $O_NOFOLLOW) or fail('mount', "$mount->[1]: $!");
  my $is = readlink '/proc/self/fd/' . fileno $fh;
  fail('mount', "$mount->[1] has become another path") if !defined $is || $is ne $mount->[1];
  $mount->[3] = $fh;
}
must_mount('process table', 'proc', '/proc', 'proc', 14, '');
open($log, '+>', "$dir/log") && unlink("$dir/log") or fail('log', "$!");
my ($volume, $maker);
if (defined $o{volume}) {
  # A file without a name: whoever ends us, nothing of it stays.
  sysopen($volume, "$dir/volume", $O_CREAT | $O_EXCL | 2, 0600) && unlink("$dir/volume") && truncate($volume, $o{volume})
    or fail('volume', "$!");
  if ($template) { copy_data($template, $volume, ${MOST_TEMPLATE_BYTES}) or fail('volume', "its template: $!") }
}
if ($volume && !$template) {
  fcntl($volume, 2, 0);
  $maker = start('mkfs.ext4', '-q', '-F', '-O', '^has_journal', '-m', '0', '-E', 'lazy_itable_init=1,nodiscard',
    '/proc/self/fd/' . fileno $volume);
  fcntl($volume, 2, 1);
}
must_mount('working directory', 'decant', $dir, 'tmpfs', 6, 'size=16m,mode=0700');
chdir $dir or fail('working directory', "$!");
new_folder($_, 0755) for qw(fuse image lower rw root);

# Pipes that are at their end when the process which alone holds the other side has ended.
pipe my $alive_r, my $alive_w or fail('pipe', "$!");
pipe my $disk_r, my $disk_w or fail('pipe', "$!");
my ($disk, $server) = $o{file};
if (defined $o{nbd}) {
  fcntl($disk_w, 2, 0);
  $server = start('nbdfuse', '-r', '-P', "$dir/nbdfuse.pid", "$dir/fuse/disk", $o{nbd});
  close $disk_w;
}
my $map = "0 $base $o{count}\n";
my ($user_ns, $why) = user_namespace($map, $map, 0, 1);
fail('user namespace', $why) if defined $why;

# The first process of the sandbox is made before there is a root for it, because the kernel takes its time over a control
# group. What this process starts itself from then on is not in the sandbox's process namespace.
if ($host_net) { enter_namespace(fileno($host_net), $NEWNET) or fail('network namespace', "$!") }
else {
  leave_namespaces($NEWNET) or fail('network namespace', "$!");
  my ($socket, $up) = (undef, pack('a16 s x22', 'lo', 0x41));
  socket($socket, 2, 2, 0) && ioctl($socket, 0x8914, $up) or fail('loopback', "$!");
  write_file('/proc/sys/net/ipv4/ip_unprivileged_port_start', '0');
}
open(my $own_processes, '<', '/proc/self/ns/pid') or fail('namespaces', "$!");
if (%theirs) {
  enter_namespace(fileno($theirs{ipc}), $NEWIPC) && enter_namespace(fileno($theirs{uts}), $NEWUTS)
    && enter_namespace(fileno($theirs{pid}), $NEWPID) or fail('namespaces of the container', "$!");
} else { leave_namespaces($NEWIPC | $NEWUTS | $NEWPID) or fail('namespaces', "$!") }
set_hostname($o{hostname}) or fail('host name', "$!");
pipe my $mounted_r, my $mounted_w or fail('pipe', "$!");
pipe my $ready_r, my $ready_w or fail('pipe', "$!");
pipe my $go_r, my $go_w or fail('pipe', "$!");
my $guest = fork;
fail('fork', "$!") unless defined $guest;
if ($guest == 0) {
  close $_ for $mounted_w, $ready_r, $go_w;
${PERL_FIRST_PROCESS}
}
close $_ for $mounted_r, $ready_w, $go_r;
open(my $processes, '<', '/proc/self/ns/pid_for_children') or fail('namespace', "$!");
enter_namespace(fileno($own_processes), $NEWPID) or fail('namespaces', "$!");
close $own_processes;

if (defined $o{nbd}) {
  my $deadline = time + 30;
  until (-s "$dir/nbdfuse.pid") {
    fail('nbdfuse', 'it ended before the disk was there') if waitpid($server, 1) == $server;
    fail('nbdfuse', 'the disk was not there within 30 s') if time > $deadline;
    select undef, undef, undef, 0.001;
  }
  $disk = "$dir/fuse/disk";
}
$why = $o{fs} eq 'erofs' ? mount_erofs_file($disk, "$dir/image") : 'ext4 needs a loop device';
if (defined $why) {
  open(my $fh, '<', $disk) or fail('image', "$!");
  $why = mount_loop($fh, "$dir/image", $o{fs}, $RDONLY | $NOSUID | $NODEV, $o{fs} eq 'ext4' ? 'noload' : '');
  fail('image mount', $why) if defined $why;
}
$why = idmapped_bind("$dir/image", "$dir/lower", fileno($user_ns), $RDONLY | $NOSUID | $NODEV);
fail('idmapped mount', $why) if defined $why;

if (defined $volume) {
  if ($maker) {
    waitpid $maker, 0;
    fail('volume', 'mkfs.ext4 failed') if $? != 0;
    # Only a whole one has the whole size.
    copy_data($volume, $keep, ${MOST_TEMPLATE_BYTES}) && truncate($keep, $o{volume}) if $keep;
  }
  $why = mount_loop($volume, "$dir/rw", 'ext4', 0x400 | $NOSUID | $NODEV, 'discard,barrier=0');
  fail('volume', $why) if defined $why;
  close $volume;
} else {
  must_mount('write layer', 'decant', 'rw', 'tmpfs', 6, "size=$o{memory},mode=0755");
}

# The paths in the options are what the guest reads in its table of mounts, so they are not those of the host.
my $OVERLAY = 'index=off,metacopy=off,redirect_dir=nofollow';
sub lay_over {
  my ($lower, $writable, $target) = @_;
  new_folder("rw/$_", 0755) for $writable, "$writable/upper", "$writable/work";
  my @top = stat $lower or fail('write layer', "$!");
  chown($top[4], $top[5], "rw/$writable/upper") && chmod($top[2] & 07777, "rw/$writable/upper")
    or fail('write layer', "$!");
  my $where = "lowerdir=$lower,upperdir=rw/$writable/upper,workdir=rw/$writable/work,$OVERLAY";
  my $volatile = defined $o{volume} ? ',volatile' : '';
  mount_at('decant', $target, 'overlay', 6, $where . $volatile) || $volatile && mount_at('decant', $target, 'overlay', 6, $where)
    or fail('overlay', "$!");
}
lay_over('lower', 'root', 'root');
open(my $upper, '<', 'rw/root/upper') or fail('write layer', "$!");
sysopen(my $root, 'root', $O_PATH | $O_DIRECTORY) or fail('image root', "$!");

for my $name (qw(proc dev)) {
  if (!lstat "root/$name") { new_folder("root/$name", 0755); chown($base, $base, "root/$name") or fail("/$name", "$!") }
  fail("/$name", "/$name of the image is not a directory") if -l "root/$name" || !-d _;
}
# A descriptor of what is at a path in the image; folders on the way are made, and at its end one or an empty file.
sub make_below {
  my ($path, $is_file) = @_;
  my @parts = grep { $_ ne '' && $_ ne '.' } split m{/+}, $path;
  my $at = fileno $root;
  my $walked = '.';
  while (defined(my $part = shift @parts)) {
    $walked .= "/$part";
    my $next = open_below(fileno($root), $walked, $O_PATH);
    if ($next < 0) {
      fail('mount', "$path inside: $!") if !$!{ENOENT} || $part eq '..';
      go_to($at) or fail('mount', "$path inside: $!");
      if (@parts || !$is_file) { mkdir $part, 0755 or fail('mount', "$path inside: $!") }
      else { sysopen(my $new, $part, $O_CREAT | $O_EXCL | $O_NOFOLLOW | 1, 0644) or fail('mount', "$path inside: $!") }
      chown $base, $base, $part or fail('mount', "$path inside: $!");
      $next = open_below(fileno($root), $walked, $O_PATH);
      fail('mount', "$path inside: $!") if $next < 0;
    }
    $at = $next;
  }
  chdir $dir or fail('mount', "$!");
  return $at;
}
sub move_below {
  my ($tree, $target, $is_file) = @_;
  my $at = make_below($target, $is_file);
  my $empty = '';
  syscall(429, $tree + 0, $empty, $at + 0, $empty, $F_EMPTY | 0x40) == 0 or fail('mount', "$target inside: $!");
}
my ($uid, $gid) = (0, 0);
if ($o{ask}) { report_users(fileno $root); ($uid, $gid) = expect('user') }
# A copy of a mount in which what belongs to the owner of the source belongs to the sandbox's user.
sub tree_of {
  my ($fh, $flags) = @_;
  my $empty = '';
  my @found = stat $fh or fail('mount', "$!");
  my $tree = syscall(428, fileno($fh), $empty, $CLONE | $CLOEXEC | $AT_EMPTY_PATH);
  fail('mount', "open_tree: $!") if $tree < 0;
  my ($ns, $why) = user_namespace("$found[4] " . ($base + $uid) . " 1\n", "$found[5] " . ($base + $gid) . " 1\n", 0, 1);
  fail('mount', $why) if defined $why;
  my $mapped = pack('Q4', $IDMAP | $flags, 0, 0, fileno $ns);
  if (syscall(442, $tree + 0, $empty, $AT_EMPTY_PATH, $mapped, length $mapped) != 0) {
    # Where the filesystem cannot map ids, the guest has the rights of others.
    my $plain = pack('Q4', $flags, 0, 0, 0);
    syscall(442, $tree + 0, $empty, $AT_EMPTY_PATH, $plain, length $plain) == 0 or fail('mount', "mount_setattr: $!");
  }
  return $tree;
}
my $number = 0;
for my $mount (@mounts) {
  my ($type, $source, $target, $fh) = @$mount;
  if ($type eq 'tmpfs') {
    must_mount('mount', 'decant', '/proc/self/fd/' . make_below($target, 0), 'tmpfs', 6,
      "size=$source,mode=1777,uid=" . ($base + $uid) . ',gid=' . ($base + $gid));
    next;
  }
  stat $fh or fail('mount', "$source: $!");
  my $is_file = !-d _;
  fail('mount', "$source is neither a file nor a directory") if $is_file && !-f _;
  my $tree = tree_of($fh, $NOSUID | $NODEV | ($type eq 'read-write' ? 0 : $RDONLY));
  if ($type eq 'overlay') {
    fail('mount', "$source is a file, and only directories can be laid under a write layer") if $is_file;
    my $name = 'mount' . $number++;
    new_folder($_, 0755) for "$name.lower", "$name.root";
    my $why = move_here($tree, "$name.lower");
    fail('mount', $why) if defined $why;
    lay_over("$name.lower", $name, "$name.root");
    my $path = "$name.root";
    $tree = syscall(428, $AT_FDCWD, $path, $CLONE | $CLOEXEC);
    fail('mount', "open_tree: $!") if $tree < 0;
  }
  move_below($tree, $target, $is_file);
}

sub keep { my ($fh, $number) = @_; move_fd(fileno($fh), $number) or fail('descriptor', "$!") }
# One that is gone has said why.
$SIG{PIPE} = 'IGNORE';
syswrite $mounted_w, 'm';
sysread $ready_r, my $answer, 2000;
if (($answer || '') ne 'ok') { fail('root', $answer || 'the first process of the sandbox ended') }
my @kept = (
  ["/proc/$guest/ns/mnt", ${SANDBOX_FDS.mount}],   ['/proc/self/ns/net', ${SANDBOX_FDS.network}], ['/proc/self/ns/ipc', ${SANDBOX_FDS.ipc}],
  ['/proc/self/ns/uts', ${SANDBOX_FDS.uts}], ["/proc/$guest/ns/cgroup", ${SANDBOX_FDS.cgroup}]);
for my $kept (@kept) { open(my $fh, '<', $kept->[0]) or fail('namespace', "$!"); keep($fh, $kept->[1]) }
keep($processes, ${SANDBOX_FDS.process});
keep($user_ns, ${SANDBOX_FDS.user});
keep($upper, ${SANDBOX_FDS.upper});
syswrite $go_w, 'g';
close $alive_w;
close $go_w;
waitpid $guest, 0 if defined $container;
my $first = defined $container ? $container : fileno $alive_r;
report('ready', readlink '/proc/self/fd/${SANDBOX_FDS.user}');
while (1) {
  my $bits = '';
  vec($bits, 3, 1) = 1;
  vec($bits, $_, 1) = 1 for $first, $server ? fileno $disk_r : ();
  next if select(my $set = $bits, undef, undef, undef) < 0;
  hear(1) if vec($set, 3, 1);
  my $lost = vec($set, $first, 1) ? (defined $container ? 'its container has ended' : 'its first process was killed')
    : $server && vec($set, fileno($disk_r), 1) ? 'its disk is gone' : next;
  report('ended', hexed($lost));
  end_container();
  quit(0);
}
`;
