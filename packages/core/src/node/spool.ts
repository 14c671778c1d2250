/** Default of the bytes that are held: more than the output of one build that a service keeps. */
const HELD_BYTES = 32 * 1024 * 1024;

const SPOOL_PROGRAM = String.raw`
use strict; use warnings; no warnings 'exec'; use POSIX (); use Fcntl;
my $most = shift @ARGV;
my @ending = qw(TERM INT HUP);
# Whoever ends the program reads what it says at that; what ends it is not for this process.
$SIG{$_} = 'IGNORE' for @ending, 'PIPE';
my @streams;
for my $fd (1, 2) {
  pipe my $from, my $to or die "pipe: $!\n";
  push @streams, { fd => $fd, from => $from, to => $to, queue => [], at => 0 };
}
my $program = fork;
die "fork: $!\n" unless defined $program;
if ($program == 0) {
  $SIG{$_} = 'DEFAULT' for @ending, 'PIPE';
  POSIX::dup2(fileno($_->{to}), $_->{fd}) for @streams;
  exec { $ARGV[0] } @ARGV;
  print STDERR "$ARGV[0]: $!\n";
  POSIX::_exit(127);
}
# Only to leave select.
$SIG{CHLD} = sub { };
my ($held, $status) = (0, undef);
for my $stream (@streams) {
  close delete $stream->{to};
  open $stream->{out}, '>&=', $stream->{fd} or die "open: $!\n";
  fcntl $stream->{out}, F_SETFL, O_WRONLY | O_NONBLOCK or die "fcntl: $!\n";
}
while (grep { $_->{from} || @{$_->{queue}} } @streams) {
  my ($readable, $writable) = ('', '');
  for my $stream (@streams) {
    vec($readable, fileno $stream->{from}, 1) = 1 if $stream->{from} && $held < $most;
    vec($writable, $stream->{fd}, 1) = 1 if @{$stream->{queue}};
  }
  my $asked = $readable;
  # Before the look at the pipes: what a program that has ended wrote is in them.
  $status = $? if !defined $status && waitpid($program, POSIX::WNOHANG()) == $program;
  my $reads = grep { $_->{from} } @streams;
  # The time limit covers a program that ends between waitpid and select.
  next if select($readable, $writable, undef, defined $status && $reads && $held < $most ? 0 : 0.2) < 0;
  for my $stream (@streams) {
    my $queue = $stream->{queue};
    my $bit = $stream->{from} ? fileno $stream->{from} : 0;
    if ($stream->{from} && vec $readable, $bit, 1) {
      my $count = sysread $stream->{from}, my $piece, 65536;
      if ($count) {
        $held += $count;
        if (@$queue && length $queue->[-1] < 65536) { $queue->[-1] .= $piece } else { push @$queue, $piece }
      }
      elsif (defined $count || !$!{EINTR}) { close delete $stream->{from} }
      # A pipe holds no more than was read, so this was the last that the program itself wrote.
      close delete $stream->{from} if $stream->{from} && $count && defined $status;
    }
    elsif ($stream->{from} && defined $status && vec $asked, $bit, 1) {
      # What is still open is held by processes that the program has left behind.
      close delete $stream->{from};
    }
    if (@$queue && vec $writable, $stream->{fd}, 1) {
      my $count = syswrite $stream->{out}, $queue->[0], length($queue->[0]) - $stream->{at}, $stream->{at};
      if (defined $count) {
        $held -= $count;
        $stream->{at} += $count;
        if ($stream->{at} == length $queue->[0]) { shift @$queue; $stream->{at} = 0 }
      }
      elsif (!$!{EAGAIN} && !$!{EINTR}) {
        # Nobody reads any more: the program is told as it would have been without this process.
        $held -= length(join '', @$queue) - $stream->{at};
        @$queue = ();
        $stream->{at} = 0;
        close delete $stream->{from} if $stream->{from};
      }
    }
  }
}
unless (defined $status) { waitpid $program, 0; $status = $? }
if (my $signal = $status & 127) {
  $SIG{$_} = 'DEFAULT' for @ending, 'PIPE';
  kill $signal, $$;
  POSIX::_exit(128 + $signal);
}
POSIX::_exit($status >> 8);
`;

/**
 * The command with its standard output and error taken off its hands at once, however slowly they are read here. It is for programs that lose output when writing it takes long: buildah ends the process that copies what a
 * step has written as soon as the step has ended, whether or not everything is copied, and the sockets that Node gives
 * its children are full after some hundred short lines. It ends with the command, also when processes stay behind that
 * hold its output. Its exit status or signal is that of the command. It ignores
 * TERM, INT and HUP, so that the last output of a command that is ended still comes.
 * @param perl path of perl(1).
 * @param heldBytes most bytes of both streams that wait for the reader; default 32 MiB. Beyond it the command waits, too.
 */
export function spooled(perl: string, command: readonly string[], heldBytes = HELD_BYTES): [string, ...string[]] {
  return [perl, '-e', SPOOL_PROGRAM, '--', String(heldBytes), ...command];
}
