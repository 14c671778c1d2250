import { PERL_CALLS } from '../perl-calls.ts';
import { PERL_CONVERSATION } from './perl-conversation.ts';
import { SANDBOX_FDS } from './setup-program.ts';

/**
 * Writes the upper directory of a sandbox's overlay to 1 as an OCI layer: POSIX tar with PAX records, whiteouts as files
 * (image-spec, "Representing changes"), ids as they are inside, extended attributes as SCHILY.xattr records. It has this
 * directory for its root, reads names one at a time and follows no link. Of capabilities it keeps what reading any file
 * and the attributes of the overlay takes. The group that is frozen meanwhile is thawed at the end, also when the
 * launcher is gone.
 *
 *     < export HOLDER USER-NAMESPACE BASE COUNT SECCOMP FREEZE-FILE FREEZE-WORD THAW-WORD      file and words may be -
 *     > started, then done | fail STEP REASON
 */
export const CHANGES_PROGRAM = String.raw`
my ($freezer, $thaw_word);
sub thaw { if ($freezer) { sysseek $freezer, 0, 0; syswrite $freezer, $thaw_word } }
sub gone { thaw(); quit(125) }
${PERL_CALLS}
${PERL_CONVERSATION}
sub fail { thaw(); report('fail', hexed($_[0]), hexed($_[1])); quit(125) }
not_dumpable();
close_from(4);
new_session();
$0 = 'decant-changes';
$SIG{PIPE} = 'IGNORE';
my ($holder, $expected, $base, $count, $filter, $freeze_file, $freeze_word, $thaw) = expect('export');
($expected, $filter, $freeze_file, $freeze_word, $thaw) = map { unhex($_) } $expected, $filter, $freeze_file, $freeze_word, $thaw;
open(my $ns, '<', "/proc/$holder/fd/${SANDBOX_FDS.user}") or fail('sandbox', 'it has ended');
open(my $upper, '<', "/proc/$holder/fd/${SANDBOX_FDS.upper}") or fail('sandbox', 'it has ended');
fail('sandbox', 'it has ended') if (readlink('/proc/self/fd/' . fileno $ns) || '') ne $expected;
close $ns;
if ($freeze_file ne '') {
  my $state;
  $thaw_word = $thaw;
  open($freezer, '+<', $freeze_file) && syswrite($freezer, $freeze_word) or fail('freezer', "$!");
  # Version 1 says FREEZING until all stand still; version 2 tells it elsewhere, within a moment.
  for (1 .. 500) {
    sysseek $freezer, 0, 0;
    sysread $freezer, $state, 100;
    last if $state !~ /FREEZING/;
    select undef, undef, undef, 0.002;
  }
}
chdir($upper) && chroot('.') or fail('root', "$!");
my $READ = 1 << 2 | 1 << 21;
bound_capabilities($READ);
keep_capabilities($READ) && confine($filter) or fail('confine', "$!");
report('started');

my ($out, %seen) = ('');
my $flush = sub { write_all(\*STDOUT, $out) or gone(); $out = ''; hear(1) };
my $id = sub { my $n = $_[0] - $base; return $n >= 0 && $n < $count ? $n : 65534 };
sub header {
  my ($name, $mode, $uid, $gid, $size, $when, $type, $link) = @_;
  my $block = pack 'a100 a8 a8 a8 a12 a12 A8 a1 a100 a6 a2 a32 a32 a8 a8 a155 x12', $name, sprintf('%07o', $mode),
    sprintf('%07o', $uid), sprintf('%07o', $gid), sprintf('%011o', $size), sprintf('%011o', $when), '', $type, $link,
    'ustar', '00', '', '', '', '', '';
  substr $block, 148, 8, sprintf("%06o\0 ", unpack '%32C*', $block);
  return $block;
}
sub padding { return "\0" x (-$_[0] % 512) }
sub record {
  my ($key, $value) = @_;
  my $length = length($key) + length($value) + 3;
  my $all = $length + length $length;
  $all = $length + length $all;
  return "$all $key=$value\n";
}
# Ids in access control lists and in capabilities of files are of the host.
sub inside_value {
  my ($key, $value) = @_;
  if ($key eq 'security.capability' && length $value == 24) {
    my ($magic, $rest) = unpack 'V a16', $value;
    return pack 'V a16', 0x02000000 | $magic & 1, $rest;
  }
  if ($key =~ /^system\.posix_acl_/) {
    my ($version, @entries) = unpack 'V (v v V)*', $value;
    for (my $i = 0; $i < @entries; $i += 3) { $entries[$i + 2] = $id->($entries[$i + 2]) if $entries[$i] & 0x0a }
    return pack 'V (v v V)*', $version, @entries;
  }
  return $value;
}
sub attributes {
  my ($entry) = @_;
  my $names = "\0" x 65536;
  my $n = list_attributes($entry, $names);
  return {} if $n <= 0;
  my %found;
  for my $key (split /\0/, substr $names, 0, $n) {
    my $value = "\0" x 65536;
    my $length = get_attribute($entry, $key, $value);
    $found{$key} = substr $value, 0, $length if $length >= 0;
  }
  return \%found;
}
sub entry {
  my ($path, $found, $type, $size, $link, $attributes) = @_;
  my ($mode, $uid, $gid, $when) = ($found->[2] & 07777, $id->($found->[4]), $id->($found->[5]), $found->[9]);
  my $records = '';
  my ($name, $target) = ($path, $link);
  if (length $name > 100 || $name =~ /[^\x20-\x7e]/) { $records .= record('path', $name); $name = substr $name, -100 }
  if (length $target > 100 || $target =~ /[^\x20-\x7e]/) { $records .= record('linkpath', $target); $target = substr $target, -100 }
  my $told = $size;
  if ($size >= 8589934592) { $records .= record('size', $size); $told = 0 }
  if ($when < 0 || $when >= 8589934592) { $records .= record('mtime', $when); $when = 0 }
  for my $key (sort keys %$attributes) {
    next if $key !~ /^user\.|^security\.capability$|^system\.posix_acl_/;
    $records .= record("SCHILY.xattr.$key", inside_value($key, $attributes->{$key}));
  }
  if ($records ne '') {
    $out .= header('pax', 0644, 0, 0, length $records, 0, 'x', '') . $records . padding(length $records);
  }
  $out .= header($name, $mode, $uid, $gid, $told, $when, $type, $target);
  $flush->() if length $out > 262144;
}
sub contents {
  my ($entry, $size) = @_;
  sysopen(my $fh, $entry, $O_NOFOLLOW | $O_NONBLOCK | $O_NOCTTY) or fail($entry, "$!");
  for (my $left = $size; $left > 0; ) {
    my $n = sysread $fh, $out, $left < 262144 ? $left : 262144, length $out;
    fail($entry, "$!") if !defined $n;
    # It shrank, because nothing stood still: the rest is empty.
    if (!$n) { $n = $left < 262144 ? $left : 262144; $out .= "\0" x $n }
    $left -= $n;
    $flush->() if length $out > 262144;
  }
  $out .= padding($size);
}
sub walk {
  my ($prefix, $depth) = @_;
  fail('tree', 'it is too deep') if $depth > 900;
  opendir(my $all, '.') or fail('tree', "$!");
  my @names = sort grep { $_ ne '.' && $_ ne '..' } readdir $all;
  closedir $all;
  for my $name (@names) {
    my @found = lstat $name or next;
    my $path = $prefix . $name;
    if (-c _ && $found[6] == 0) { entry("$prefix.wh.$name", [0, 0, 0, 0, $base, $base, 0, 0, 0, 0], '0', 0, '', {}); next }
    next if -S _ || -b _ || -c _;
    my $attributes = attributes($name);
    if (-d _) {
      entry("$path/", \@found, '5', 0, '', $attributes);
      if (($attributes->{'trusted.overlay.opaque'} || '') eq 'y') {
        entry("$path/.wh..wh..opq", [0, 0, 0, 0, $base, $base, 0, 0, 0, 0], '0', 0, '', {});
      }
      sysopen(my $before, '.', $O_DIRECTORY) or fail('tree', "$!");
      sysopen(my $inner, $name, $O_DIRECTORY | $O_NOFOLLOW) or fail($path, "$!");
      chdir $inner or fail($path, "$!");
      close $inner;
      walk("$path/", $depth + 1);
      chdir $before or fail('tree', "$!");
      next;
    }
    my $key = "$found[0]:$found[1]";
    if ($found[3] > 1 && !-d _) {
      if (defined $seen{$key}) { entry($path, \@found, '1', 0, $seen{$key}, {}); next }
      $seen{$key} = $path;
    }
    if (-l _) { entry($path, \@found, '2', 0, readlink $name, $attributes) }
    elsif (-p _) { entry($path, \@found, '6', 0, '', $attributes) }
    elsif (-f _) { my $size = $found[7]; entry($path, \@found, '0', $size, '', $attributes); contents($name, $size) }
  }
}
walk('', 0);
$out .= "\0" x 1024;
$flush->();
thaw();
report('done');
quit(0);
`;
