/**
 * What an image writer yields and the chunker reads: the bytes of a disk image from its first to its last,
 * with hints about where to cut. Any split of the same bytes into pieces gives the same chunks.
 */
export type ImagePiece =
  /** Any number of bytes. They belong to the writer again once the next piece is asked for. */
  | { readonly type: 'data'; readonly bytes: Uint8Array }
  /** A run of zero bytes. */
  | { readonly type: 'zeros'; readonly lengthBytes: number }
  /** A large file or a group of small ones begins here. Only at multiples of 4,096 bytes. */
  | { readonly type: 'cut' };
