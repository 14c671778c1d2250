import { ROOT_CAPABILITY_MASK } from './capabilities.ts';

/* System calls that have a number of their own on each architecture, and open(2) flags; what has neither is below. */
const X64 = {
  close: 3,
  dup3: 292,
  exitGroup: 231,
  prctl: 157,
  capset: 126,
  unshare: 272,
  setns: 308,
  mount: 165,
  umount2: 166,
  pivotRoot: 155,
  sethostname: 170,
  setsid: 112,
  setgroups: 116,
  setresuid: 117,
  setresgid: 119,
  prlimit: 302,
  mknodat: 259,
  fchdir: 81,
  fchownat: 260,
  lgetxattr: 192,
  llistxattr: 195,
  directory: 0x10000,
  nofollow: 0x20000,
};
const ARM64: typeof X64 = {
  close: 57,
  dup3: 24,
  exitGroup: 94,
  prctl: 167,
  capset: 91,
  unshare: 97,
  setns: 268,
  mount: 40,
  umount2: 39,
  pivotRoot: 41,
  sethostname: 161,
  setsid: 157,
  setgroups: 159,
  setresuid: 147,
  setresgid: 149,
  prlimit: 261,
  mknodat: 33,
  fchdir: 50,
  fchownat: 54,
  lgetxattr: 9,
  llistxattr: 12,
  directory: 0x4000,
  nofollow: 0x8000,
};
/** On other architectures nothing is started, because seccompFilter refuses them. */
const CALLS = process.arch === 'arm64' ? ARM64 : X64;

/**
 * Perl routines for what a set-up program needs of the kernel. They stand in for the module POSIX, which takes three times as
 * long to load as perl takes to start. Numbers of one column are the same on every architecture:
 *
 *     434 pidfd_open   436 close_range   437 openat2
 */
export const PERL_CALLS = String.raw`
use strict; use warnings; no warnings 'exec';
my ($O_CREAT, $O_EXCL, $O_NOCTTY, $O_NONBLOCK, $O_PATH, $O_CLOEXEC) = (0x40, 0x80, 0x100, 0x800, 0x200000, 0x80000);
my ($O_DIRECTORY, $O_NOFOLLOW) = (${CALLS.directory}, ${CALLS.nofollow});
my ($NEWNS, $NEWCGROUP, $NEWUTS, $NEWIPC, $NEWUSER, $NEWPID, $NEWNET) =
  (0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000);

# Ends at once: nothing that perl would do at the end is wanted in a forked child.
sub quit { syscall(${CALLS.exitGroup}, $_[0] + 0); kill 'KILL', $$ }
sub set_process { return syscall(${CALLS.prctl}, $_[0] + 0, $_[1] + 0, 0, 0, 0) == 0 }
sub die_with_parent { return set_process(1, 9) }
sub not_dumpable { return set_process(4, 0) }
sub new_session { return syscall(${CALLS.setsid}) }
sub move_fd { return syscall(${CALLS.dup3}, $_[0] + 0, $_[1] + 0, 0) >= 0 }
sub close_fd { return syscall(${CALLS.close}, $_[0] + 0) == 0 }
sub close_from { return syscall(436, $_[0] + 0, 0xffffffff, 0) == 0 }
sub leave_namespaces { return syscall(${CALLS.unshare}, $_[0] + 0) == 0 }
sub enter_namespace { return syscall(${CALLS.setns}, $_[0] + 0, $_[1] + 0) == 0 }
sub go_to { return syscall(${CALLS.fchdir}, $_[0] + 0) == 0 }
# At most so much, or less where this process may not have as much itself.
sub set_limit {
  my ($which, $most) = @_;
  my $own = "\0" x 16;
  return 0 if syscall(${CALLS.prlimit}, 0, $which + 0, 0, $own) != 0;
  my (undef, $hard) = unpack 'Q2', $own;
  $most = $hard if $hard < $most;
  my $pair = pack 'Q2', $most, $most;
  return syscall(${CALLS.prlimit}, 0, $which + 0, $pair, 0) == 0;
}
sub list_attributes { my ($path) = @_; return syscall(${CALLS.llistxattr}, $path, $_[1], length $_[1]) }
sub get_attribute { my ($path, $key) = @_; return syscall(${CALLS.lgetxattr}, $path, $key, $_[2], length $_[2]) }
sub own_link { my ($path, $uid, $gid) = @_; return syscall(${CALLS.fchownat}, -100, $path, $uid + 0, $gid + 0, 0x100) == 0 }
sub mount_at {
  my ($source, $target, $type, $flags, $data) = @_;
  return syscall(${CALLS.mount}, $source, $target, $type, $flags + 0, $data) == 0;
}
# The folder becomes the root, and nothing of the one before can be reached any more.
sub replace_root {
  my ($new) = @_;
  my $old = $new;
  return syscall(${CALLS.pivotRoot}, $new, $old) == 0 && syscall(${CALLS.umount2}, $old, 2) == 0 && chdir '/';
}
sub set_hostname { my ($name) = @_; return syscall(${CALLS.sethostname}, $name, length $name) == 0 }
sub make_device {
  my ($path, $mode, $major, $minor) = @_;
  return syscall(${CALLS.mknodat}, -100, $path, 0020000 | $mode, ($major << 8) | $minor) == 0;
}
# A descriptor for a path below the directory $fd. Links do not lead out of it; with $strict they are not followed at all.
sub open_below {
  my ($fd, $path, $flags, $strict) = @_;
  my $how = pack 'Q3', $flags | $O_CLOEXEC, 0, $strict ? 0x08 | 0x04 | 0x02 : 0x10 | 0x02;
  return syscall(437, $fd + 0, $path, $how, length $how);
}
# The ids are those of the user namespace that this process is in.
sub become {
  my ($uid, $gid, @groups) = @_;
  my $list = pack 'L*', @groups;
  return syscall(${CALLS.setgroups}, scalar(@groups), $list) == 0
    && syscall(${CALLS.setresgid}, $gid + 0, $gid + 0, $gid + 0) == 0
    && syscall(${CALLS.setresuid}, $uid + 0, $uid + 0, $uid + 0) == 0;
}
# Capabilities that no program started from here on can have.
sub bound_capabilities {
  my ($low) = @_;
  for my $number (0 .. 63) {
    next if $number < 32 && $low >> $number & 1;
    last if !set_process(24, $number);
  }
}
sub keep_capabilities {
  my ($low) = @_;
  my ($head, $sets) = (pack('Ll', 0x20080522, 0), pack('L6', $low, $low, 0, 0, 0, 0));
  return syscall(${CALLS.capset}, $head, $sets) == 0;
}
my $ROOT_CAPABILITIES = ${ROOT_CAPABILITY_MASK};
# No program gains rights from here on, and the filter applies to this process and all that it starts.
sub confine {
  my ($filter) = @_;
  my $program = pack 'S x6 P', length($filter) / 8, $filter;
  return set_process(38, 1) && syscall(${CALLS.prctl}, 22, 2, $program, 0, 0) == 0;
}
sub hexed { my $h = unpack 'H*', $_[0]; return $h eq '' ? '-' : $h }
sub unhex { my ($h) = @_; return $h eq '-' ? '' : pack 'H*', $h }
sub write_all {
  my ($fh, $bytes) = @_;
  for (my $at = 0; $at < length $bytes; ) {
    my $n = syswrite $fh, $bytes, length($bytes) - $at, $at;
    next if !defined $n && $!{EINTR};
    return 0 if !$n;
    $at += $n;
  }
  return 1;
}
`;
