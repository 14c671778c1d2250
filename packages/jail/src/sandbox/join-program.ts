import { PERL_CALLS } from '../perl-calls.ts';
import { PERL_CONVERSATION } from './perl-conversation.ts';
import { PERL_PUMP } from './perl-pump.ts';
import { SANDBOX_FDS } from './setup-program.ts';

/** Host name of `tty` in images: the group that terminals belong to. */
const TTY_GROUP = 5;
/** Most open files of a process in a sandbox. */
const MOST_FILES = 65_536;

/**
 * Joins a sandbox and starts a command in it; one process of it stays outside, moves bytes and carries out orders. It is
 * hidden from everything inside: not in the guest's process namespace, not dumpable, and in its child all rights over
 * the host are gone before anything of the guest runs. With `task`, the child does what the perl text says instead
 * of starting a command, with the same rights as root of the image, and descriptors 0 and 1 are those of the caller.
 *
 *     < join PID USER-NAMESPACE BASE GROUP-FILE...
 *     < users
 *     > files PASSWD GROUP
 *     < run MODE UID GID GROUPS MAKE WORKDIR COLUMNS ROWS PROCESSES SECCOMP COMMAND PATH ENVIRONMENT ARGV...
 *     > started | missing 126 or 127 | fail STEP REASON
 *     < signal NUMBER | resize COLUMNS ROWS | kill        the last one ends the whole session
 *     > exit STATUS
 *     < bye                                                  no order comes any more
 *
 * MODE is `pipes`, `outputs` (pipes for the outputs; standard input is the caller's), `terminal` or `task` (the caller's
 * streams); ENVIRONMENT and WORKDIR and what follows SECCOMP are hexadecimal. End of file on 3 kills the session of a
 * command that runs.
 */
export function joinProgram(task = ''): string {
  return String.raw`
my ($child, $session, $has_ended, $proc, $terminal, @mine) = (0, 0, 0);
sub gone { end_child() if $child && !$has_ended; quit(125) }
${PERL_CALLS}
${PERL_CONVERSATION}
sub fail { report('fail', hexed($_[0]), hexed($_[1])); quit(125) }
$SIG{__DIE__} = sub { fail('program', $_[0]) };
${PERL_PUMP}
${PERL_END_SESSION}
die_with_parent();
not_dumpable();
close_from(4);
umask 022;
$0 = 'decant-join';
my ($holder, $expected, $base, @groups) = expect('join');
($expected, @groups) = map { unhex($_) } $expected, @groups;
sub held {
  my ($number) = @_;
  open(my $fh, '<', "/proc/$holder/fd/$number") or fail('namespaces', 'the sandbox has ended');
  return $fh;
}
my @group_files = map { open(my $fh, '>', $_) or fail('control group', "$!"); $fh } @groups;
my @enter = ([held(${SANDBOX_FDS.network}), $NEWNET], [held(${SANDBOX_FDS.ipc}), $NEWIPC],
  [held(${SANDBOX_FDS.uts}), $NEWUTS], [held(${SANDBOX_FDS.cgroup}), $NEWCGROUP],
  [held(${SANDBOX_FDS.process}), $NEWPID], [held(${SANDBOX_FDS.mount}), $NEWNS]);
my $upper = held(${SANDBOX_FDS.upper});
my $user_ns = held(${SANDBOX_FDS.user});
# The number may belong to another process by now.
my $is = readlink '/proc/self/fd/' . fileno $user_ns;
fail('namespaces', 'the sandbox has ended') if ($is || '') ne $expected;
sysopen($proc, '/proc', $O_DIRECTORY) or fail('process table', "$!");
enter_namespace(fileno($_->[0]), $_->[1]) or fail('namespaces', "$!") for @enter;
close $_->[0] for @enter;
chdir '/' or fail('root', "$!");
sysopen(my $root, '/', $O_PATH | $O_DIRECTORY) or fail('root', "$!");
expect('users');
report_users(fileno $root);
my ($mode, $uid, $gid, $groups, $make, $workdir, $columns, $rows, $processes, $filter, $command, $path, $env, @argv) =
  expect('run');
($workdir, $filter, $command, $path, $env, @argv) = map { unhex($_) } $workdir, $filter, $command, $path, $env, @argv;
my @ids = $groups eq '-' ? () : split /,/, $groups;

my @theirs;
if ($mode eq 'terminal') {
  sysopen(my $master, '/dev/pts/ptmx', 2 | $O_NOCTTY) or fail('terminal', "$!");
  my ($number, $zero) = (pack('L', 0), pack('L', 0));
  ioctl($master, 0x80045430, $number) && ioctl($master, 0x40045431, $zero) or fail('terminal', "$!");
  $terminal = '/dev/pts/' . unpack 'L', $number;
  chown($base + $uid, $base + ${TTY_GROUP}, $terminal) or fail('terminal', "$!");
  set_size($master, $columns, $rows);
  @mine = ($master);
} elsif ($mode eq 'pipes' || $mode eq 'outputs') {
  for ($mode eq 'pipes' ? (0 .. 2) : (1, 2)) {
    pipe my $r, my $w or fail('pipe', "$!");
    ($mine[$_], $theirs[$_]) = $_ ? ($r, $w) : ($w, $r);
    # So that the user can open /dev/stdout and the like.
    chown($base + $uid, $base + $gid, $theirs[$_]) or fail('pipe', "$!");
  }
}
pipe my $status_r, my $status_w or fail('pipe', "$!");
$SIG{$_} = 'IGNORE' for qw(PIPE INT QUIT);
$child = fork;
fail('fork', "$!") unless defined $child;
if ($child == 0) {
  close $status_r;
  my $give_up = sub { syswrite $status_w, join ' ', @_; quit(1) };
  my $need = sub { my ($ok, $step) = @_; $give_up->('fail', hexed($step), hexed("$!")) if !$ok };
  # Signals to the caller's group, such as those of its terminal's keys, are not for the command.
  new_session();
  if (defined $terminal) {
    sysopen(my $tty, $terminal, 2) or $need->(0, 'terminal');
    ioctl($tty, 0x540e, 0) or $need->(0, 'terminal');
    $need->(move_fd(fileno($tty), $_), 'terminal') for 0 .. 2;
  } else { $need->(move_fd(fileno($theirs[$_]), $_), 'streams') for grep { defined $theirs[$_] } 0 .. $#theirs }
  for my $file (@group_files) { $need->(syswrite($file, '0'), 'control group') }
  set_limit(6, $processes) && set_limit(4, 0) && set_limit(7, ${MOST_FILES}) or $need->(0, 'limits');
  # What a process may do outside ends here.
  $need->(enter_namespace(fileno($user_ns), $NEWUSER), 'user namespace');
  $need->(become(0, 0), 'user');
  bound_capabilities($ROOT_CAPABILITIES);
  $need->(keep_capabilities($ROOT_CAPABILITIES) && not_dumpable(), 'capabilities');
  ${task}
  if ($make) {
    my $made = '';
    for my $part (grep { $_ ne '' } split m{/+}, $workdir) {
      $made .= "/$part";
      mkdir $made, 0755 if !-e $made;
    }
  }
  $need->(become($uid, $gid, @ids) && ($uid != 0 || keep_capabilities($ROOT_CAPABILITIES)), 'user');
  $need->(die_with_parent(), 'user');
  chdir $workdir or $give_up->('fail', hexed('working directory'), hexed("$workdir: $!"));
  $SIG{$_} = 'DEFAULT' for qw(PIPE INT QUIT);
  %ENV = map { split /=/, $_, 2 } split /\0/, $env;
  $need->(confine($filter), 'system call filter');
  # Also tells whether the parent died before it could be noticed.
  syswrite $status_w, 's' or quit(1);
  syscall(436, 3, 0xffffffff, 4);
  my $found = 127;
  for my $candidate ($command =~ m{/} ? ($command) : map { ($_ eq '' ? '.' : $_) . "/$command" } split /:/, $path) {
    next if !-e $candidate;
    $found = 126;
    next if !-f _ || !-x _;
    exec { $candidate } @argv;
    last;
  }
  $give_up->(" missing $found");
}
close $_ for $status_w, $user_ns, $upper, (grep { defined } @theirs), @group_files, $root;
# Whoever writes to the command's standard input hears when it is closed.
close STDIN if $mode eq 'outputs';
# A task has them itself: when it gives up, whoever writes to it or reads from it hears of it.
if ($mode eq 'task') { close STDIN; close STDOUT }
$session = $child;
# From here on orders are carried out and bytes moved, and nothing else.
keep_capabilities(1 << 5);
my $said = '';
while (sysread $status_r, $said, 4096, length $said) { }
close $status_r;
if ($said =~ /^s?(?: ?)(missing \d+|fail \S+ \S+)$/) { waitpid $child, 0; report($1); quit(0) }
report('started');
carry_on();
`;
}

/** Ends all processes of the command's session, stopping them first so that none starts another meanwhile. */
const PERL_END_SESSION = String.raw`
sub members {
  my @found;
  go_to(fileno $proc) or return;
  opendir(my $all, '.') or return;
  for my $pid (grep { /^\d+$/ } readdir $all) {
    open(my $file, '<', "$pid/stat") or next;
    sysread $file, my $stat, 4096;
    my ($state, undef, undef, $its) = split / /, substr($stat, rindex($stat, ')') + 2);
    push @found, $pid if $its == $session && $state !~ /[ZXx]/;
  }
  return @found;
}
# What nobody waits for keeps the sandbox's process namespace from ending until the first process of the host comes round to it.
sub end_child {
  end_session();
  for (1 .. 1000) {
    last if waitpid($child, 1) != 0;
    select undef, undef, undef, 0.002;
  }
}
sub end_session {
  my %stopped;
  for (1 .. 1000) {
    my @new = grep { !$stopped{$_}++ } members();
    last if !@new;
    kill 'STOP', @new;
  }
  for (1 .. 1000) {
    my @left = members() or last;
    kill 'KILL', @left;
    select undef, undef, undef, 0.002;
  }
}
`;
