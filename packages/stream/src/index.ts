export { createImageDisk, type ImageDisk, type ImageDiskOptions, type ImageDiskStats } from './image-disk.ts';
export type { NbdExports } from './nbd-negotiation.ts';
export { serveNbd, type NbdServer, type ServeNbdOptions } from './nbd-server.ts';
