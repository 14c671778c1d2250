import { PERL_MOUNTS } from './perl-mounts.ts';

/** Descriptors of the set-up program: control on 0, output on 1 and 2. */
export const CELL_FDS = { output: 3, reports: 4, userNamespace: 9, seccomp: 8 } as const;

/** Descriptor that a cell's command may close: that of its user namespace, which bubblewrap leaves open. */
export const CELL_USER_NAMESPACE_FD = CELL_FDS.userNamespace;

/** Where bubblewrap finds what it binds, in the cell's own mount namespace. */
export const CELL_PATHS = { volume: '/tmp/volume', inbox: '/tmp/in' } as const;

/**
 * Process 1 of a private mount and process namespace, started as root. Arguments: volume file, mount point, inbox,
 * first host id, ids, hexadecimal seccomp filter, files to join groups by (separated by colons), then the command
 * that starts bubblewrap. End of file on 0 ends everything. On 4 it writes one line: `exit STATUS [SIZE FREE
 * FREE-INODES]`, of the volume in bytes, or `fail REASON` (hexadecimal).
 */
export const CELL_PROGRAM = String.raw`
use strict; use warnings; no warnings 'exec'; use POSIX (); use Fcntl;
$^F = 2;
POSIX::close($_) for 5 .. 1023;
my ($volume, $dir, $inbox, $base, $count, $filter, $join, @command) = @ARGV;
open(my $reports, '>&=', ${CELL_FDS.reports}) or POSIX::_exit(125);
fcntl($reports, F_SETFD, FD_CLOEXEC);
sub report { syswrite $reports, join(' ', @_) . "\n" }
sub give_up { report('fail', unpack 'H*', join '', @_); POSIX::_exit(125) }
${PERL_MOUNTS}
sub copy_of_mount {
  my ($from, $flags) = @_;
  my $fd = syscall(428, $AT_FDCWD, $from, $CLONE | $CLOEXEC);
  give_up("$from: open_tree: $!") if $fd < 0;
  my ($attr, $empty) = (pack('Q4', $flags, 0, 0, 0), '');
  syscall(442, $fd + 0, $empty, $AT_EMPTY_PATH, $attr, length $attr) == 0 or give_up("mount_setattr: $!");
  return $fd;
}
system('mount', '-t', 'ext4', '-o', 'loop,noatime,discard,nosuid,nodev', $volume, $dir) == 0
  or give_up('the volume cannot be mounted');
# The folders above belong to the host's users and cannot be passed by the cell's.
my @trees = ([copy_of_mount($dir, $NOSUID | $NODEV), '${CELL_PATHS.volume}'],
  [copy_of_mount($inbox, $RDONLY | $NOSUID | $NODEV), '${CELL_PATHS.inbox}']);
system('umount', $dir) == 0 or give_up('umount failed');
system('mount', '-t', 'tmpfs', '-o', 'size=1m,mode=0755,nosuid,nodev', 'decant', '/tmp') == 0 or give_up('tmpfs failed');
for my $tree (@trees) {
  mkdir $tree->[1], 0755 or give_up("$tree->[1]: $!");
  my $why = move_here(@$tree);
  give_up($why) if defined $why;
}
my $map = "0 $base $count\n";
my ($ns, $why) = user_namespace($map, $map, $base);
give_up("user namespace: $why") if defined $why;
pipe my $r, my $w or give_up("pipe: $!");
syswrite($w, pack 'H*', $filter) or give_up("filter: $!");
close $w;
my $main = fork;
give_up("fork: $!") unless defined $main;
if ($main == 0) {
  for my $file (split /:/, $join) {
    open(my $group, '>', $file) or give_up("$file: $!");
    syswrite($group, $$) or give_up("$file: $!");
  }
  open STDIN, '<', '/dev/null';
  # Out of the way first: either may be where the other is to go.
  POSIX::dup2(fileno($ns), 40);
  POSIX::dup2(fileno($r), 41);
  POSIX::dup2(40, ${CELL_FDS.userNamespace});
  POSIX::dup2(41, ${CELL_FDS.seccomp});
  POSIX::close($_) for 40, 41;
  exec { $command[0] } @command;
  give_up("$command[0]: $!");
}
close $r;
POSIX::close(${CELL_FDS.output});
my $ended;
$SIG{CHLD} = sub { };
until (defined $ended) {
  while ((my $pid = waitpid -1, POSIX::WNOHANG()) > 0) { $ended = $? if $pid == $main }
  last if defined $ended;
  my $bits = '';
  vec($bits, 0, 1) = 1;
  # The time limit covers a child that ends between waitpid and select.
  if (select($bits, undef, undef, 0.2) > 0) { sysread(STDIN, my $ignored, 1) or POSIX::_exit(125) }
}
my $status = $ended & 127 ? 128 + ($ended & 127) : $ended >> 8;
# What was filled in a moment is seen by nobody who looks from time to time.
my $space = $status ? qx(df --output=size,avail,iavail -B1 ${CELL_PATHS.volume}) : '';
report('exit', $status, $space =~ /(\d+)\s+(\d+)\s+(\d+)\s*$/ ? ($1, $2, $3) : ());
POSIX::_exit(0);
`;
