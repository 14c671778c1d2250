export { createFileChunkStore, type FileChunkStoreOptions } from './file-chunk-store.ts';
export { openFileRandomAccess } from './file-random-access.ts';
export { loadNodeHashProvider } from './node-hash-provider.ts';
export { createZstdCodec } from './zstd-codec.ts';
export { makeFromFile, type MadeImage, type MakeOptions } from './make-from-file.ts';
export { openPackDirectory, type PackDirectory } from './pack-directory.ts';
export { scanFile, type ScannedStretch, type ScanOptions } from './scan-file.ts';
