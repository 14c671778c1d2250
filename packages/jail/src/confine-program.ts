import { PERL_MOUNTS } from './perl-mounts.ts';

/** Where the confined tool's paths wait for bubblewrap, in a mount namespace of their own. */
export const PATHS_FOR_TOOL = '/tmp';
/** Descriptor of the seccomp filter. */
export const TOOL_SECCOMP_FD = 22;
/** How a message of the set-up program on standard error begins. */
export const CONFINE_PREFIX = 'decant-jail: ';

/**
 * Prepares a confined tool. Arguments: host id to become (0 when not started as root), hexadecimal seccomp
 * filter, number of paths, the paths, then the command that starts bubblewrap.
 *
 * As root it is process 1 of private mount and process namespaces. Each path is bound to /tmp/NUMBER by a mount
 * that shows the owner of the path as the host id the tool runs with, so that a file that only root may read can be
 * given to a process that is nobody. Where the filesystem cannot map ids, the tool reads with the rights of others.
 */
export const CONFINE_PROGRAM = String.raw`
use strict; use warnings; no warnings 'exec'; use POSIX ();
$^F = 2;
POSIX::close($_) for 3 .. 1023;
my ($id, $filter, $count, @rest) = @ARGV;
my @paths = splice @rest, 0, $count;
sub give_up { print STDERR '${CONFINE_PREFIX}', @_, "\n"; POSIX::_exit(125) }
${PERL_MOUNTS}
if ($id) {
  my (@trees, %ns);
  for my $path (@paths) {
    my @found = stat $path or give_up("$path: $!");
    my $owner = "$found[4] $id 1\n" . "/$found[5] $id 1\n";
    if (!$ns{$owner}) {
      my ($fh, $why) = user_namespace("$found[4] $id 1\n", "$found[5] $id 1\n", $id);
      give_up("user namespace: $why") if defined $why;
      $ns{$owner} = $fh;
    }
    my $fd = syscall(428, $AT_FDCWD, $path, $CLONE | $CLOEXEC);
    give_up("$path: open_tree: $!") if $fd < 0;
    my $attr = pack('Q4', $IDMAP | $NOSUID | $NODEV, 0, 0, fileno($ns{$owner}));
    my $empty = '';
    syscall(442, $fd + 0, $empty, $AT_EMPTY_PATH, $attr, length $attr);
    push @trees, [$fd, -d _];
  }
  system('mount', '-t', 'tmpfs', '-o', 'size=16m,mode=0711,nosuid,nodev', 'decant', '${PATHS_FOR_TOOL}') == 0
    or give_up('mount failed');
  my $number = 0;
  for my $tree (@trees) {
    my $to = '${PATHS_FOR_TOOL}/' . $number++;
    if ($tree->[1]) { mkdir $to or give_up("$to: $!") }
    else { open(my $fh, '>', $to) or give_up("$to: $!") }
    my $why = move_here($tree->[0], $to);
    give_up($why) if defined $why;
  }
}
pipe my $r, my $w or give_up("pipe: $!");
syswrite($w, pack 'H*', $filter) or give_up("filter: $!");
close $w;
my $main = $id ? fork : 0;
give_up("fork: $!") unless defined $main;
if ($main == 0) {
  POSIX::dup2(fileno($r), ${TOOL_SECCOMP_FD});
  exec { $rest[0] } @rest;
  give_up("$rest[0]: $!");
}
close $r;
my $status = 0;
while ((my $pid = wait) > 0) { if ($pid == $main) { $status = $?; last } }
POSIX::_exit($status & 127 ? 128 + ($status & 127) : $status >> 8);
`;
