import { PERL_MOUNTS } from './perl-mounts.ts';

/** Descriptors that the set-up program hands to bubblewrap. */
export const GUEST_FDS = { userNamespace: 20, args: 21, seccomp: 22, status: 23 } as const;

/** Where bubblewrap finds the writable root, in the run's own mount namespace. */
export const ROOT_FOR_GUEST = '/tmp';

/**
 * The set-up program: process 1 of a private mount and process namespace, started as root. It mounts the
 * image, starts bubblewrap and waits for its end. When it ends, for whatever reason, the kernel ends every
 * process and mount of the run. Nothing of the image runs here: what reads it does so by chroot.
 *
 * Arguments are KEY=VALUE. It reads lines on descriptor 3 and writes lines on 4; binary parts are hexadecimal:
 *
 *     > ready                              the launcher's death is noticed from here on
 *     < go
 *     > files PASSWD GROUP                 /etc/passwd and /etc/group of the image
 *     < run UID GID GROUPS COMMAND PATH WORKDIR ARGS SECCOMP ARGV...
 *     > started
 *     > exit STATUS | missing 126 or 127 | fail STEP REASON
 *
 * End of file on 3 at any time ends the run.
 */
export const INIT_PROGRAM = String.raw`
use strict; use warnings; no warnings 'exec'; use POSIX (); use Fcntl;
$^F = 2;
my %o = map { split /=/, $_, 2 } @ARGV;
my ($dir, $base) = ($o{dir}, $o{base} + 0);
# Nothing the launcher had open by accident reaches the guest.
POSIX::close($_) for 5 .. 1023;
open(my $in, '<&=', 3) && open(my $out, '>&=', 4) or POSIX::_exit(125);
fcntl($_, F_SETFD, FD_CLOEXEC) for $in, $out;
my $log;

sub report { syswrite $out, join(' ', @_) . "\n" }
sub hexed { my $h = unpack 'H*', $_[0]; return $h eq '' ? '-' : $h }
sub unhex { my ($h) = @_; return $h eq '-' ? '' : pack 'H*', $h }
sub fail {
  my ($step, $why) = @_;
  if ($log) {
    my ($size, $tail) = (-s $log, '');
    sysseek $log, ($size > 2000 ? $size - 2000 : 0), 0;
    sysread $log, $tail, 2000;
    $why .= "\n$tail" if $tail ne '';
  }
  report('fail', hexed($step), hexed($why));
  POSIX::_exit(125);
}
my $buffer = '';
sub hear {
  my $end;
  while (($end = index $buffer, "\n") < 0) {
    my $n = sysread $in, $buffer, 65536, length $buffer;
    next if !defined $n && $!{EINTR};
    POSIX::_exit(125) if !$n;
  }
  my $line = substr $buffer, 0, $end;
  substr($buffer, 0, $end + 1) = '';
  return $line;
}
sub start {
  my @command = @_;
  my $pid = fork;
  fail('fork', "$!") unless defined $pid;
  return $pid if $pid;
  POSIX::setsid();
  open STDIN, '<', '/dev/null';
  open STDOUT, '>&', $log;
  open STDERR, '>&', $log;
  exec { $command[0] } @command;
  print STDERR "$command[0]: $!\n";
  POSIX::_exit(127);
}
sub try_run { my $pid = start(@_); waitpid $pid, 0; return $? == 0 }
sub must_run { my ($step, @command) = @_; try_run(@command) or fail($step, "$command[0] failed") }
# Runs code in a child that has the image as its root; gives what it printed and its exit status.
sub in_image {
  my ($code) = @_;
  pipe my $r, my $w or fail('pipe', "$!");
  my $pid = fork;
  fail('fork', "$!") unless defined $pid;
  if ($pid == 0) {
    close $r;
    chroot("$dir/root") && chdir('/') or POSIX::_exit(125);
    POSIX::_exit($code->($w));
  }
  close $w;
  my $data = do { local $/; <$r> };
  waitpid $pid, 0;
  return (defined $data ? $data : '', $? >> 8);
}
${PERL_MOUNTS}
report('ready');
POSIX::_exit(125) if hear() ne 'go';

open($log, '+>', "$dir/log") && unlink "$dir/log" or POSIX::_exit(125);
must_run('working directory', 'mount', '-t', 'tmpfs', '-o', 'size=16m,mode=0700,nosuid,nodev', 'decant', $dir);
mkdir "$dir/$_" or fail('mkdir', "$!") for qw(fuse image lower rw root);

my $map = "0 $base $o{count}\n";
my ($ns, $why) = user_namespace($map, $map, $base);
fail('user namespace', $why) if defined $why;

my $disk = $o{file};
if (defined $o{nbd}) {
  my $pid = start('nbdfuse', '-r', '-P', "$dir/nbdfuse.pid", "$dir/fuse/disk", $o{nbd});
  my $deadline = time + 30;
  until (-s "$dir/nbdfuse.pid") {
    fail('nbdfuse', 'it ended before the disk was there') if waitpid($pid, POSIX::WNOHANG()) == $pid;
    fail('nbdfuse', 'the disk was not there within 30 s') if time > $deadline;
    select undef, undef, undef, 0.005;
  }
  $disk = "$dir/fuse/disk";
}

my $how = 'file';
$why = $o{fs} eq 'erofs' ? mount_erofs_file($disk, "$dir/image") : 'ext4 needs a loop device';
if (defined $why) {
  $how = 'loop';
  my $options = $o{fs} eq 'ext4' ? 'ro,noload,loop,nosuid,nodev' : 'ro,loop,nosuid,nodev';
  must_run('image mount', 'mount', '-t', $o{fs}, '-o', $options, $disk, "$dir/image");
}
$why = idmapped_bind("$dir/image", "$dir/lower", fileno($ns), $RDONLY | $NOSUID | $NODEV);
fail('idmapped mount', $why) if defined $why;

must_run('write layer', 'mount', '-t', 'tmpfs', '-o', "size=$o{disk},mode=0755,nosuid,nodev", 'decant', "$dir/rw");
mkdir "$dir/rw/upper" or fail('mkdir', "$!");
mkdir "$dir/rw/work" or fail('mkdir', "$!");
my @top = stat "$dir/lower" or fail('image root', "$!");
chown($top[4], $top[5], "$dir/rw/upper") && chmod($top[2] & 07777, "$dir/rw/upper") or fail('write layer', "$!");
must_run('overlay', 'mount', '-t', 'overlay', '-o',
  "lowerdir=$dir/lower,upperdir=$dir/rw/upper,workdir=$dir/rw/work,nosuid,nodev", 'decant', "$dir/root");
for my $name (qw(proc dev)) {
  my $path = "$dir/root/$name";
  if (!lstat $path) { mkdir($path, 0755) && chown($base, $base, $path) or fail("/$name", "$!") }
  fail("/$name", "/$name of the image is not a directory") if -l $path || !-d $path;
}

my ($files, $status) = in_image(sub {
  my ($w) = @_;
  my @texts;
  for my $path ('/etc/passwd', '/etc/group') {
    my $text = '';
    if (sysopen(my $file, $path, O_RDONLY | O_NONBLOCK | O_NOCTTY)) {
      if (-f $file) { while (length($text) < 1048576 && sysread($file, $text, 65536, length($text))) { } }
    }
    push @texts, hexed($text);
  }
  syswrite $w, "@texts";
  return 0;
});
fail('image files', 'they could not be read') if $status != 0;
report('files', $files, $how);

my ($verb, $uid, $gid, $groups, $command, $path, $workdir, $args, $seccomp, @argv) = split / /, hear();
fail('protocol', 'run expected') if $verb ne 'run';
($command, $path, $workdir, $args, $seccomp) = map { unhex($_) } $command, $path, $workdir, $args, $seccomp;
my @groups = $groups eq '-' ? () : map { $base + $_ } split /,/, $groups;

(undef, $status) = in_image(sub {
  my $made = '';
  for my $part (split m{/+}, $workdir) {
    next if $part eq '';
    $made .= "/$part";
    if (!-e $made) { mkdir($made, 0755) && chown($base, $base, $made) or return 124 }
  }
  my ($u, $g) = ($base + $uid, $base + $gid);
  $) = join ' ', $g, $g, @groups;
  POSIX::setgid($g);
  POSIX::setuid($u);
  return 125 if $> != $u || $< != $u;
  chdir($workdir) or return 124;
  my $found = 127;
  for my $candidate ($command =~ m{/} ? ($command) : map { ($_ eq '' ? '.' : $_) . "/$command" } split /:/, $path) {
    next if !-e $candidate;
    return 0 if -f _ && -x _;
    $found = 126;
  }
  return $found;
});
if ($status == 126 || $status == 127) { report('missing', $status); POSIX::_exit(0) }
fail('working directory', 'the working directory cannot be entered by the user') if $status == 124;
fail('user', 'the user cannot be assumed') if $status != 0;

# bubblewrap joins the guest's user namespace as its owner, without any privilege on the host.
(my $guest_ns, $why) = user_namespace($map, $map, $base + $uid);
fail('user namespace', $why) if defined $why;
# Nested user namespaces are a kernel attack surface that nothing here needs.
try_run('nsenter', "--user=/proc/$$/fd/" . fileno($guest_ns), '-S', '0', '-G', '0', 'sh', '-c',
  'echo 0 > /proc/sys/user/max_user_namespaces') or fail('user namespace', 'nesting could not be turned off');

my %given;
for ([args => $args], [seccomp => $seccomp]) {
  my ($name, $bytes) = @$_;
  open $given{$name}, '+>', "$dir/$name" or fail($name, "$!");
  for (my $at = 0; $at < length $bytes; ) {
    my $n = syswrite $given{$name}, $bytes, length($bytes) - $at, $at;
    fail($name, "$!") unless $n;
    $at += $n;
  }
  sysseek $given{$name}, 0, 0;
}
# The owner cannot pass the folders above $dir, which belong to the host's users; nothing needs /tmp here.
must_run('root', 'mount', '--bind', "$dir/root", '${ROOT_FOR_GUEST}');
pipe my $status_r, my $status_w or fail('pipe', "$!");
$SIG{CHLD} = sub { };
my $main = fork;
fail('fork', "$!") unless defined $main;
if ($main == 0) {
  $SIG{CHLD} = 'DEFAULT';
  POSIX::dup2(fileno($guest_ns), ${GUEST_FDS.userNamespace});
  POSIX::dup2(fileno($given{args}), ${GUEST_FDS.args});
  POSIX::dup2(fileno($given{seccomp}), ${GUEST_FDS.seccomp});
  POSIX::dup2(fileno($status_w), ${GUEST_FDS.status});
  my @ids = @groups ? ('--groups', join ',', @groups) : ('--clear-groups');
  exec 'prlimit', "--nproc=$o{nproc}:$o{nproc}", '--core=0:0', '--',
    'setpriv', '--reuid', $base + $uid, '--regid', $base + $gid, @ids, '--',
    'bwrap', '--args', ${GUEST_FDS.args}, '--', map { unhex($_) } @argv;
  POSIX::_exit(127);
}
close $status_w;
report('started');
my $ended;
until (defined $ended) {
  while ((my $pid = waitpid -1, POSIX::WNOHANG()) > 0) { $ended = $? if $pid == $main }
  last if defined $ended;
  my $bits = '';
  vec($bits, fileno($in), 1) = 1;
  # The time limit covers a child that ends between waitpid and select.
  if (select($bits, undef, undef, 0.2) > 0) { sysread($in, my $ignored, 1) or POSIX::_exit(125) }
}
fcntl $status_r, F_SETFL, O_NONBLOCK;
sysread $status_r, my $told, 65536;
if (($told || '') =~ /"exit-code"\s*:\s*(\d+)/) { report('exit', $1) }
else { fail('bubblewrap', 'it ended before the command began; its message is on standard error') }
POSIX::_exit(0);
`;
