/** CRC-32C (Castagnoli, reflected polynomial 0x82f63b78), as RFC 3720 and the Linux kernel's crc32c use it. */
const TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  let value = byte;
  for (let bit = 0; bit < 8; bit++) value = (value & 1) === 1 ? (value >>> 1) ^ 0x82f63b78 : value >>> 1;
  return value;
});

/** Runs the register over the bytes. No inversion at the start or end: that is the caller's, as in the kernel. */
export function crc32c(bytes: Uint8Array, register = 0xffffffff): number {
  let value = register;
  for (const byte of bytes) value = TABLE[(value ^ byte) & 0xff]! ^ (value >>> 8);
  return value >>> 0;
}
