/**
 * Reads and writes single files inside, with the rights of the guest's root, as asked on 0; names are hexadecimal:
 *
 *     < read NAME              > file LENGTH, then as many bytes | none
 *     < write MODE LENGTH NAME, then as many bytes               > ok FOLDER-MADE... | fail REASON
 *
 * Argument: most bytes of a file. A file that is no plain one, or has more, is `none`. Links on the way to a file are
 * followed, inside; what is written takes the place of what was there, also of a link.
 */
export const FILE_TASK = String.raw`
$need->(confine($filter), 'system call filter');
syswrite $status_w, 's' or quit(1);
close $status_w;
my ($most) = @argv;
my $got = '';
my $fill = sub { my $n = sysread STDIN, $got, 262144, length $got; quit(0) if !$n };
my $say = sub { write_all(\*STDOUT, $_[0]) or quit(1) };
my $read = sub {
  my ($path) = @_;
  sysopen(my $fh, $path, $O_NONBLOCK | $O_NOCTTY) or return;
  return if !-f $fh || -s _ > $most;
  my $bytes = '';
  while (length $bytes <= $most) {
    my $n = sysread $fh, $bytes, 262144, length $bytes;
    return if !defined $n;
    return \$bytes if !$n;
  }
  return;
};
my $write = sub {
  my ($path, $mode, $bytes) = @_;
  my ($parent) = $path =~ m{\A(/.*?)/*[^/]+\z}s or return 'it has no name';
  my ($made, @made) = ('');
  for my $part (grep { $_ ne '' } split m{/+}, $parent) {
    $made .= "/$part";
    next if -d $made;
    if (mkdir $made, 0755) { push @made, $made } elsif (!-d $made) { return "$made: $!" }
  }
  lstat $path;
  return 'it is a directory' if -d _;
  (-e _ || -l _) && !unlink $path and return "$!";
  sysopen(my $fh, $path, 1 | $O_CREAT | $O_EXCL | $O_NOFOLLOW, 0600) or return "$!";
  return write_all($fh, $bytes) && chmod(oct($mode) & 0777, $fh) ? \@made : "$!";
};
while (1) {
  my $end;
  $fill->() while ($end = index $got, "\n") < 0;
  my ($verb, @words) = split / /, substr $got, 0, $end;
  substr($got, 0, $end + 1) = '';
  if ($verb eq 'read') {
    my $bytes = $read->(unhex($words[0]));
    $say->(defined $bytes ? 'file ' . length($$bytes) . "\n$$bytes" : "none\n");
  } else {
    my ($mode, $length, $name) = @words;
    $fill->() while length $got < $length;
    my $done = $write->(unhex($name), $mode, substr $got, 0, $length, '');
    $say->((ref $done ? join ' ', 'ok', map { hexed($_) } @$done : 'fail ' . hexed($done)) . "\n");
  }
}
`;
