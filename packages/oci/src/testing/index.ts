export { startDockerRegistry } from './docker-registry.ts';
export { digestOf, LayoutMaker, type ImageSpec, type LayerForm } from './make-layout.ts';
export { entryBlocks, header, makeTar, number, padded, paxRecords, sign, type TarSpec } from './make-tar.ts';
export { failure, gather, inPieces } from './streams.ts';
export { serve, serveHandler, type TestServer } from './serve.ts';
