/*
 * What moves between the host's side of a copy and the side inside, which is a process in the guest's root, with the rights
 * of its root user: a tree in the order of a walk, as lines of words. Names and link targets are hexadecimal.
 *
 *     dir MODE SECONDS NAME ... up | link NAME TARGET | file MODE SECONDS NAME, then data AT LENGTH and as many bytes,
 *     as often as needed, then size BYTES | done
 */

/** Takes a tree from 0. Arguments: target, name of the source. Answers `ok` or `fail HEX` on 1. */
export const RECEIVE_TASK = String.raw`
$need->(confine($filter), 'system call filter');
syswrite $status_w, 's' or quit(1);
close $status_w;
my ($target, $source_name) = @argv;
my ($got, $at) = ('', 0);
my $fill = sub { my $n = sysread STDIN, $got, 262144, length $got; quit(1) if !$n };
my $line = sub {
  my $end;
  $fill->() while ($end = index $got, "\n") < 0;
  my @words = split / /, substr $got, 0, $end;
  substr($got, 0, $end + 1) = '';
  return @words;
};
my $fail = sub { write_all(\*STDOUT, 'fail ' . hexed("$_[0]") . "\n"); quit(0) };
$target =~ s{(?<=.)/+\z}{};
my ($parent, $name) = -d $target ? ($target, $source_name) : $target =~ m{\A(.*/)([^/]+)\z}s;
$fail->("$target is not a path that can be written") if !defined $name || $name =~ /\A\.{0,2}\z/;
my $made = '';
for my $part (grep { $_ ne '' } split m{/+}, $parent) {
  $made .= "/$part";
  next if -d $made;
  mkdir $made, 0755 or $fail->("$made: $!");
  chown $uid, $gid, $made;
}
chdir $parent or $fail->("$parent: $!");
my @above;
my $first = 1;
while (1) {
  my ($kind, @words) = $line->();
  last if $kind eq 'done';
  if ($kind eq 'up') {
    my ($fh, $before, $when) = @{pop @above};
    utime $when, $when, $fh;
    chdir $before or $fail->("$!");
    next;
  }
  my ($mode, $when) = $kind eq 'link' ? () : splice @words, 0, 2;
  my $entry = unhex($words[0]);
  if ($first) { $entry = $name; $first = 0 }
  $fail->('a name is not one') if $entry =~ m{\A\.{0,2}\z|/}s;
  lstat $entry;
  if ($kind eq 'dir') {
    if (!-e _ || -l _) { mkdir $entry, 0700 or $fail->("$entry: $!") }
    sysopen(my $before, '.', $O_DIRECTORY) or $fail->("$!");
    sysopen(my $fh, $entry, $O_DIRECTORY | $O_NOFOLLOW) or $fail->("$entry: $!");
    chdir $fh or $fail->("$entry: $!");
    chown($uid, $gid, $fh) && chmod(oct($mode) & 0777, $fh) or $fail->("$entry: $!");
    push @above, [$fh, $before, $when];
    next;
  }
  my $exists = -e _ || -l _;
  $fail->("$entry is a directory") if $exists && -d _;
  my $gone = !$exists || unlink $entry;
  $fail->("$entry: $!") if !$gone && !$!{EBUSY};
  if ($kind eq 'link') {
    symlink(unhex($words[1]), $entry) && own_link($entry, $uid, $gid) or $fail->("$entry: $!");
    next;
  }
  sysopen(my $fh, $entry, 1 | $O_NOFOLLOW | $O_NONBLOCK | ($gone ? $O_CREAT | $O_EXCL : 0), 0600) or $fail->("$entry: $!");
  while (1) {
    my ($verb, $where, $length) = $line->();
    if ($verb eq 'size') { truncate $fh, $where or $fail->("$entry: $!"); last }
    sysseek $fh, $where, 0 or $fail->("$entry: $!");
    while ($length > 0) {
      $fill->() if $got eq '';
      my $piece = substr $got, 0, $length, '';
      $length -= length $piece;
      write_all($fh, $piece) or $fail->("$entry: $!");
    }
  }
  chown($uid, $gid, $fh) && chmod(oct($mode) & 0777, $fh) or $fail->("$entry: $!");
  utime $when, $when, $fh;
}
write_all(\*STDOUT, "ok\n");
quit(0);
`;

/** Gives a tree on 1, or `fail HEX`. Argument: source. */
export const SEND_TASK = String.raw`
$need->(confine($filter), 'system call filter');
syswrite $status_w, 's' or quit(1);
close $status_w;
my $say = sub { write_all(\*STDOUT, join(' ', @_) . "\n") or quit(1) };
my $fail = sub { $say->('fail', hexed("$_[0]")); quit(0) };
my $send;
$send = sub {
  my ($entry, $follow) = @_;
  my @found = $follow ? stat $entry : lstat $entry;
  $fail->("$entry: $!") if !@found;
  my ($mode, $when, $name) = (sprintf('%o', $found[2] & 0777), $found[9], hexed($entry));
  my $is = $found[2] & 0170000;
  if ($is == 0120000) {
    my $to = readlink $entry;
    $fail->("$entry: $!") if !defined $to;
    $say->('link', $name, hexed($to));
  } elsif ($is == 0040000) {
    sysopen(my $before, '.', $O_DIRECTORY) or $fail->("$!");
    my $fh;
    sysopen($fh, $entry, $O_DIRECTORY | ($follow ? 0 : $O_NOFOLLOW)) && chdir($fh) or $fail->("$entry: $!");
    $say->('dir', $mode, $when, $name);
    opendir(my $all, '.') or $fail->("$entry: $!");
    while (defined(my $inner = readdir $all)) { $send->($inner, 0) if $inner ne '.' && $inner ne '..' }
    closedir $all;
    chdir $before or $fail->("$!");
    $say->('up');
  } elsif ($is == 0100000) {
    sysopen(my $fh, $entry, $O_NONBLOCK | $O_NOCTTY | ($follow ? 0 : $O_NOFOLLOW)) or $fail->("$entry: $!");
    $fail->("$entry has changed while it was copied") if !-f $fh;
    my $size = -s $fh;
    $say->('file', $mode, $when, $name);
    for (my $at = 0; $at < $size; ) {
      # Where the next data is, and where it ends; a filesystem that cannot say has data everywhere.
      my $from = sysseek $fh, $at, 3;
      last if !defined $from && $!{ENXIO};
      $from = $at if !defined $from;
      my $end = sysseek $fh, $from, 4;
      $end = $size if !defined $end || $end > $size;
      sysseek $fh, $from, 0;
      for ($at = $from + 0; $at < $end; ) {
        my $n = sysread $fh, my $piece, $end - $at < 262144 ? $end - $at : 262144;
        $fail->("$entry: $!") if !defined $n;
        if (!$n) { $at = $size = $end; last }
        $say->('data', $at, $n);
        write_all(\*STDOUT, $piece) or quit(1);
        $at += $n;
      }
    }
    $say->('size', $size);
  } else { $fail->("$entry is neither a file, a directory nor a link") }
};
my ($source) = @argv;
$source =~ s{(?<=.)/+\z}{};
if ($source =~ m{\A(.*/)([^/]+)\z}s) { my ($parent, $name) = ($1, $2); chdir $parent or $fail->("$parent: $!"); $send->($name, 1) }
else { $send->('/', 1) }
$say->('done');
quit(0);
`;
