/** The contract suites of the ports: for tests in this workspace, not published. */
export { chunkSourceContract, testFrames, type ChunkSourceFixture } from './ports/chunk-source.contract.ts';
export type { ObjectStoreFixture } from './ports/object-store-fixture.contract.ts';
export { objectStoreContract } from './ports/object-store.contract.ts';
