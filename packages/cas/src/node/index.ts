export { createFileChunkStore, type FileChunkStoreOptions } from './file-chunk-store.ts';
export { openFileRandomAccess } from './file-random-access.ts';
export { loadNodeHashProvider } from './node-hash-provider.ts';
export { createZstdCodec } from './zstd-codec.ts';
