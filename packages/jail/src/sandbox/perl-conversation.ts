/**
 * How a program in perl talks to the process that started it, on descriptor 3: lines of words, of which those that may
 * hold anything are hexadecimal and `-` when empty. When the other side is gone it ends.
 */
export const PERL_CONVERSATION = String.raw`
open(my $talk, '+<&=', 3) or quit(125);
fcntl($talk, 2, 1);
my $heard = '';
sub report { write_all($talk, join(' ', @_) . "\n") }
# A line, or undefined when none can be had without waiting and $now is set.
sub hear {
  my ($now) = @_;
  my $end;
  while (($end = index $heard, "\n") < 0) {
    if ($now) {
      my $bits = '';
      vec($bits, 3, 1) = 1;
      return undef if select($bits, undef, undef, 0) <= 0;
    }
    my $n = sysread $talk, $heard, 65536, length $heard;
    next if !defined $n && $!{EINTR};
    gone() if !$n || length $heard > 8388608;
  }
  my $line = substr $heard, 0, $end;
  substr($heard, 0, $end + 1) = '';
  return $line;
}
# The words of a line whose first word was expected.
sub expect {
  my ($verb) = @_;
  my ($first, @words) = split / /, hear();
  gone() if $first ne $verb;
  return @words;
}
sub text_of {
  my ($root, $path) = @_;
  my $text = '';
  my $fd = open_below($root, $path, $O_NONBLOCK | $O_NOCTTY);
  return $text if $fd < 0;
  open(my $file, '<&=', $fd) or return $text;
  if (-f $file) { while (length($text) < 1048576 && sysread($file, $text, 65536, length($text))) { } }
  return $text;
}
# What resolves users: /etc/passwd and /etc/group below a root.
sub report_users { my ($root) = @_; report('files', map { hexed(text_of($root, $_)) } 'etc/passwd', 'etc/group') }
`;
