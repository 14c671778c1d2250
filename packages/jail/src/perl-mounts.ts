import { PERL_CALLS } from './perl-calls.ts';

/**
 * Perl routines for the mount calls that util-linux before 2.39 has no command for. Perl is what every Debian
 * and Ubuntu system has (`perl-base` is Essential), and `syscall` reaches the kernel without a native module.
 * The numbers are the same on every architecture (all calls after number 423 are):
 *
 *     428 open_tree   429 move_mount   430 fsopen   431 fsconfig   432 fsmount   442 mount_setattr
 *
 * `struct mount_attr` is four u64: attr_set, attr_clr, propagation, userns_fd (see mount_setattr(2)).
 */
export const PERL_MOUNTS = String.raw`
${PERL_CALLS}
my ($AT_FDCWD, $AT_EMPTY_PATH, $CLONE, $CLOEXEC, $F_EMPTY) = (-100, 0x1000, 1, 0x80000, 4);
my ($RDONLY, $NOSUID, $NODEV, $IDMAP) = (1, 2, 4, 0x100000);

sub move_here {
  my ($fd, $to) = @_;
  my $empty = '';
  my $r = syscall(429, $fd + 0, $empty, $AT_FDCWD, $to, $F_EMPTY);
  my $why = "$!";
  close_fd($fd);
  return $r == 0 ? undef : "move_mount: $why";
}

# A copy of the mount at $from appears at $to, with ids mapped as in the user namespace behind $nsfd.
sub idmapped_bind {
  my ($from, $to, $nsfd, $flags) = @_;
  my $fd = syscall(428, $AT_FDCWD, $from, $CLONE | $CLOEXEC);
  return "open_tree: $!" if $fd < 0;
  my $attr = pack('Q4', $IDMAP | $flags, 0, 0, $nsfd);
  my $empty = '';
  if (syscall(442, $fd + 0, $empty, $AT_EMPTY_PATH, $attr, length $attr) != 0) {
    my $why = "mount_setattr: $!";
    close_fd($fd);
    return $why;
  }
  return move_here($fd, $to);
}

# Mounts a file as a read-only EROFS without a loop device (Linux 6.12 and later).
sub mount_erofs_file {
  my ($from, $to) = @_;
  my ($type, $key, $ro) = ('erofs', 'source', 'ro');
  my $fs = syscall(430, $type, 1);
  return "fsopen: $!" if $fs < 0;
  my $r = syscall(431, $fs + 0, 0, $ro, 0, 0);
  $r = syscall(431, $fs + 0, 1, $key, $from, 0) if $r == 0;
  $r = syscall(431, $fs + 0, 6, 0, 0, 0) if $r == 0;
  my $why = "$!";
  my $fd = $r == 0 ? syscall(432, $fs + 0, 1, $RDONLY | $NOSUID | $NODEV) : -1;
  $why = "$!" if $r == 0 && $fd < 0;
  close_fd($fs);
  return "erofs: $why" if $fd < 0;
  return move_here($fd, $to);
}

# Mounts what is in an open file by a loop device (linux/loop.h) that goes away with the mount.
sub mount_loop {
  my ($file, $to, $type, $flags, $options) = @_;
  open(my $control, '+<', '/dev/loop-control') or return "/dev/loop-control: $!";
  my $access = $flags & $RDONLY ? '<' : '+<';
  # Another process may take the free one first.
  for (1 .. 64) {
    my $number = ioctl $control, 0x4c82, 0;
    return "no loop device: $!" if !defined $number;
    open(my $loop, $access, "/dev/loop" . ($number + 0)) or return "/dev/loop$number: $!";
    my $configuration = pack 'L2 Q5 L4 a64 a64 a32 Q2 x64', fileno($file), 0, 0, 0, 0, 0, 0, 0, 0, 0,
      4 | ($flags & $RDONLY ? 1 : 0), '', '', '', 0, 0;
    if (!ioctl $loop, 0x4c0a, $configuration) { next if $!{EBUSY}; return "loop device: $!" }
    return mount_at('/dev/loop' . ($number + 0), $to, $type, $flags, $options) ? undef : "$type: $!";
  }
  return 'all loop devices are busy';
}

# A new user namespace (an open file) with the given lines as its uid_map and gid_map. Its owner, who may enter
# it without privilege, is the host user $owner. With $flat none can be made inside: nested ones are a kernel attack
# surface.
sub user_namespace {
  my ($uid_map, $gid_map, $owner, $flat) = @_;
  pipe my $ready_r, my $ready_w or return (undef, "pipe: $!");
  my $pid = fork;
  return (undef, "fork: $!") unless defined $pid;
  if ($pid == 0) {
    close $ready_r;
    die_with_parent();
    my $why;
    if ($owner && !become($owner, $owner)) { $why = "the owner: $!" }
    elsif (!leave_namespaces($NEWUSER)) { $why = "unshare: $!" }
    elsif ($flat) {
      my $file;
      open($file, '>', '/proc/sys/user/max_user_namespaces') && syswrite($file, '0')
        or $why = "nesting could not be turned off: $!";
    }
    syswrite $ready_w, defined $why ? $why : 'ok';
    sleep 60;
    quit(0);
  }
  close $ready_w;
  my ($fh, $why);
  sysread $ready_r, my $answer, 1000;
  if (($answer || '') ne 'ok') { $why = $answer || 'it did not start' }
  else {
    for my $map (['uid_map', $uid_map], ['gid_map', $gid_map]) {
      my $file;
      my $written = open($file, '>', "/proc/$pid/$map->[0]") && syswrite($file, $map->[1]);
      if (!$written) { $why = "$map->[0]: $!"; last }
    }
    if (!defined $why) { open($fh, '<', "/proc/$pid/ns/user") or $why = "ns/user: $!" }
  }
  kill 'KILL', $pid;
  waitpid $pid, 0;
  return ($fh, $why);
}
`;
