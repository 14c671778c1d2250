import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';

/** All bytes of the metadata of a data directory: what was written last lies in the database's log, not in its file. */
export async function storedMetadata(dataDirectory: string): Promise<Buffer> {
  const names = (await readdir(dataDirectory)).filter((name) => name.startsWith('metadata.sqlite'));
  return Buffer.concat(await Promise.all(names.map((name) => readFile(join(dataDirectory, name)))));
}
