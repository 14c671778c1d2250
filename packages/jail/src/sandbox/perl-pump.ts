/**
 * Moves bytes between the launcher (descriptors 0, 1 and 2) and a command, whose pipes or terminal are in @mine, holding
 * at most one piece of each stream, so that whoever is slow slows the other side; and carries out the launcher's orders.
 */
export const PERL_PUMP = String.raw`
my $PIECE = 131072;
sub set_size {
  my ($master, $columns, $rows) = @_;
  my $size = pack 'S4', $rows, $columns, 0, 0;
  ioctl $master, 0x5414, $size;
}
sub flow { my ($from, $to, $is_input) = @_; return { from => $from, to => $to, held => '', input => $is_input } }
sub close_flow {
  my ($flow) = @_;
  $flow->{done} = 1;
  close $flow->{from} if !defined $terminal || $flow->{input};
  close $flow->{to} if !defined $terminal || !$flow->{input};
}
my $may_go = 0;
sub obey {
  my ($verb, @words) = split / /, hear();
  if ($verb eq 'bye') { $may_go = 1 }
  elsif ($verb eq 'signal') { kill $words[0], -$child if !$has_ended }
  elsif ($verb eq 'resize') { set_size($mine[0], @words) if defined $terminal }
  elsif ($verb eq 'kill') { end_session() if !$has_ended }
}
sub carry_on {
  my @flows = defined $terminal ? (flow(\*STDIN, $mine[0], 1), flow($mine[0], \*STDOUT, 0))
    : @mine ? ((defined $mine[0] ? flow(\*STDIN, $mine[0], 1) : ()), flow($mine[1], \*STDOUT, 0), flow($mine[2], \*STDERR, 0)) : ();
  if (defined $terminal) { close STDERR }
  for my $flow (@flows) { fcntl($flow->{$_}, 4, $O_NONBLOCK) for qw(from to) }
  my $watch = syscall(434, $child + 0, 0);
  while (1) {
    # One may have come together with what was heard last, also with the order to run: descriptor 3 would not tell.
    obey() while $heard =~ /\n/;
    @flows = grep { !$_->{done} } @flows;
    last if $has_ended && !grep { !$_->{input} } @flows;
    my ($reading, $writing) = ('', '');
    vec($reading, 3, 1) = 1;
    vec($reading, $watch, 1) = 1 if !$has_ended;
    for my $flow (@flows) {
      if ($flow->{held} ne '') { vec($writing, fileno $flow->{to}, 1) = 1 }
      else { vec($reading, fileno $flow->{from}, 1) = 1 }
    }
    # The terminal of a command that has ended holds no more than what can be read at once.
    my $drained = $has_ended && defined $terminal && !grep { $_->{held} ne '' } @flows;
    my $n = select $reading, $writing, undef, $drained ? 0.02 : undef;
    last if $n == 0;
    next if $n < 0;
    obey() if vec($reading, 3, 1);
    for my $flow (@flows) {
      if ($flow->{held} eq '') {
        next if !vec($reading, fileno $flow->{from}, 1);
        my $got = sysread $flow->{from}, $flow->{held}, $PIECE;
        next if !defined $got && ($!{EAGAIN} || $!{EINTR});
        if (!$got) { close_flow($flow); next }
      } elsif (!vec($writing, fileno $flow->{to}, 1)) { next }
      my $put = syswrite $flow->{to}, $flow->{held};
      next if !defined $put && ($!{EAGAIN} || $!{EINTR});
      # Nobody reads any more: the writer shall hear of it, and a terminal is hung up.
      if (!defined $put) {
        if (defined $terminal) { close $mine[0]; $_->{done} = 1 for @flows }
        close_flow($flow);
        next;
      }
      substr($flow->{held}, 0, $put) = '';
    }
    if (!$has_ended && vec($reading, $watch, 1) && waitpid($child, 1) == $child) {
      my $status = $?;
      $has_ended = 1;
      for my $flow (@flows) { close_flow($flow) if $flow->{input} }
      report('exit', $status & 127 ? 128 + ($status & 127) : $status >> 8);
    }
  }
  # An order that comes late must find somebody: to the launcher's socket a failed write is the end of what it reads.
  close STDOUT;
  close STDERR if !defined $terminal;
  obey() until $may_go;
  quit(0);
}
`;
