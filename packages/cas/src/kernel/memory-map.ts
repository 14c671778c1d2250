/**
 * Where the kernel keeps what, in an instance's memory. Every instance has a memory of its own; all addresses but the
 * end of the input are fixed.
 *
 *          0  nothing
 *         64  key, 32 bytes: eight words; BLAKE3's initial value unless a key is set
 *        128  node, the compression that is not done yet:
 *             32 bytes chaining value, 64 bytes block, u32 length of the block, u32 flags
 *        256  out, 64 bytes: what the last compression gave
 *        384  sums, 64 bytes: the sixteen lanes of the page hash
 *        512  words, 256 bytes: a block of four inputs, transposed: word i of all four is the vector at 16 i
 *       1024  values, 32 bytes each: up to 1,025 chaining values of leaves, worked up to the root in place;
 *             with room behind them for three lanes that are computed and thrown away
 *      36864  input
 *        end  4,096 bytes that idle lanes may read
 */
export const KEY = 64;
export const NODE = 128;
export const NODE_BLOCK = NODE + 32;
export const NODE_LENGTH = NODE + 96;
export const NODE_FLAGS = NODE + 100;
export const OUT = 256;
export const SUMS = 384;
export const WORDS = 512;
export const VALUES = 1024;
export const INPUT = 36_864;
export const SLACK_BYTES = 4096;

export const VALUE_BYTES = 32;
/** Leaves of one call: 1 MiB. */
export const MAX_LEAVES = 1024;

/** Size of a page of WebAssembly memory. */
export const MEMORY_PAGE_BYTES = 65_536;
