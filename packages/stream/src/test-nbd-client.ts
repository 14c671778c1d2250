import { expect } from 'vitest';

/** What an NBD client sends and gets, as bytes of its own: nothing of it comes from the code that is tested. */
interface Reader {
  readonly read: (lengthBytes: number) => Promise<Buffer>;
}

export const u16 = (value: number) => Buffer.from([value >> 8, value & 255]);
export const u32 = (value: number) => {
  const out = Buffer.alloc(4);
  out.writeUInt32BE(value);
  return out;
};
export const u64 = (value: bigint | number) => {
  const out = Buffer.alloc(8);
  out.writeBigUInt64BE(BigInt(value));
  return out;
};
export const option = (number: number, data: Uint8Array = Buffer.alloc(0), length = data.length) =>
  Buffer.concat([Buffer.from('IHAVEOPT'), u32(number), u32(length), data]);
export const infoData = (name: string, infos: number[] = []) =>
  Buffer.concat([u32(Buffer.byteLength(name)), Buffer.from(name), u16(infos.length), ...infos.map(u16)]);
export const request = (type: number, offset: bigint | number, length: number, cookie = 7n, flags = 0) =>
  Buffer.concat([u32(0x25609513), u16(flags), u16(type), u64(cookie), u64(offset), u32(length)]);

export async function reply(client: Reader) {
  const head = await client.read(20);
  expect(head.readBigUInt64BE(0)).toBe(0x3e889045565a9n);
  return { option: head.readUInt32BE(8), type: head.readUInt32BE(12), data: await client.read(head.readUInt32BE(16)) };
}
export async function answer(client: Reader, length: number) {
  const head = await client.read(16);
  expect(head.readUInt32BE(0)).toBe(0x67446698);
  const error = head.readUInt32BE(4);
  return { error, cookie: head.readBigUInt64BE(8), data: error === 0 ? await client.read(length) : undefined };
}
