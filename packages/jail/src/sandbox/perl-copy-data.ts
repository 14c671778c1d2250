/** Perl routine that copies what there is of a sparse file (lseek(2): SEEK_DATA and SEEK_HOLE). */
export const PERL_COPY_DATA = String.raw`
# What a sparse file holds, to the same places of an empty one; false when it is more than $most bytes, or not to be had.
sub copy_data {
  my ($from, $to, $most) = @_;
  my ($SEEK_DATA, $SEEK_HOLE, $end, $piece) = (3, 4, 0);
  while (defined(my $at = sysseek $from, $end, $SEEK_DATA)) {
    $end = sysseek $from, $at, $SEEK_HOLE;
    return 0 if !defined $end || ($most -= $end - $at) < 0;
    sysseek $from, $at, 0;
    sysseek $to, $at, 0;
    for (my $left = $end - $at; $left > 0; $left -= length $piece) {
      return 0 if !sysread $from, $piece, $left < 262144 ? $left : 262144;
      write_all($to, $piece) or return 0;
    }
  }
  return $!{ENXIO};
}
`;
