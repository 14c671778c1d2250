/**
 * Tries connections from inside a network namespace and says what became of them. Arguments are probes, one each:
 *
 *     tcp NAME ADDRESS PORT LIMIT_MS              connects
 *     ask NAME ADDRESS PORT LIMIT_MS HEX          connects, sends the bytes, and reads the first line of the answer
 *     dns NAME ADDRESS PORT LIMIT_MS HEX          sends a datagram and reads the answer's fourth byte
 *
 * Each gives a line `NAME OUTCOME MS DETAIL`, OUTCOME being `connected`, `answered`, `failed` (DETAIL: the errno's name or
 * number) or `slow`; DETAIL is hexadecimal for `answered`. All of them run at the same time.
 */
export const PROBE_PROGRAM = String.raw`
use strict; use warnings; no warnings 'exec';
use Socket qw(:DEFAULT inet_pton pack_sockaddr_in6 IPPROTO_TCP);
use Errno (); use Fcntl; use POSIX ();
my $ticks = POSIX::sysconf(POSIX::_SC_CLK_TCK());

sub now { return (POSIX::times())[0] / $ticks }
sub named {
  my $n = $_[0] + 0;
  for my $name (qw(ECONNREFUSED ENETUNREACH EHOSTUNREACH EAFNOSUPPORT EADDRNOTAVAIL EACCES EPERM ETIMEDOUT ECONNRESET)) {
    return $name if Errno->can($name) && Errno->can($name)->() == $n;
  }
  return $n;
}
sub wait_for {
  my ($socket, $writing, $until) = @_;
  my $left = $until - now();
  return 0 if $left <= 0;
  my $set = ''; vec($set, fileno $socket, 1) = 1;
  my ($r, $w) = $writing ? (undef, $set) : ($set, undef);
  return select($r, $w, undef, $left) > 0;
}
sub probe {
  my ($kind, $address, $port, $limit, $hex) = @_;
  my $until = now() + $limit / 1000;
  my $six = index($address, ':') >= 0;
  my $family = $six ? AF_INET6 : AF_INET;
  my $packed = inet_pton($family, $address);
  return ('failed', 'EINVAL') unless defined $packed;
  my $to = $six ? pack_sockaddr_in6($port, $packed) : pack_sockaddr_in($port, $packed);
  socket(my $s, $family, $kind eq 'dns' ? SOCK_DGRAM : SOCK_STREAM, 0) or return ('failed', named($!));
  fcntl $s, F_SETFL, O_RDWR | O_NONBLOCK;
  if (!connect $s, $to) {
    return ('failed', named($!)) unless $!{EINPROGRESS};
    return ('slow', '-') unless wait_for($s, 1, $until);
    my $error = unpack 'i', getsockopt($s, SOL_SOCKET, SO_ERROR);
    return ('failed', named($error)) if $error;
  }
  return ('connected', '-') if $kind eq 'tcp';
  defined syswrite $s, pack 'H*', $hex or return ('failed', named($!));
  my $answer = '';
  while (1) {
    return ('slow', '-') unless wait_for($s, 0, $until);
    my $n = sysread $s, $answer, 4096, length $answer;
    next if !defined $n && ($!{EAGAIN} || $!{EINTR});
    return ('failed', named($!)) unless defined $n;
    return ('failed', 'EOF') if !$n && $answer eq '';
    last if !$n || $kind eq 'dns' || length $answer > 4096 || index($answer, "\n") >= 0;
  }
  if ($kind eq 'ask') { $answer =~ s/\r?\n.*//s; $answer = substr $answer, 0, 200 }
  else { $answer = substr $answer, 0, 12 }
  return ('answered', unpack('H*', $answer) || '-');
}
my @children;
for (@ARGV) {
  my ($kind, $name, $address, $port, $limit, $hex) = split / /;
  my $pid = fork;
  defined $pid or die "fork: $!\n";
  push @children, $pid and next if $pid;
  my $began = now();
  my ($outcome, $detail) = probe($kind, $address, $port, $limit, $hex);
  syswrite STDOUT, join(' ', $name, $outcome, int((now() - $began) * 1000), $detail) . "\n";
  POSIX::_exit(0);
}
waitpid $_, 0 for @children;
`;
