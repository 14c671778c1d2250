/**
 * The table of packages: a package imports `core`, the packages named here, and no other.
 * Rows only order the table; every import points to a lower row, and packages of one row never import each other.
 */
export interface Layer {
  readonly row: number;
  /** Packages it may import besides `core`. */
  readonly imports: readonly string[];
  /** Its main entry also runs in a browser, so no Node built-in may be reachable from it. */
  readonly browser?: true;
  /** Why the package stands where it stands; printed with a violation. */
  readonly reason: string;
}

const ROWS_1_TO_4 = [
  'cas',
  'context',
  'transport',
  'jail',
  'oci',
  'dataplane',
  'stream',
  'rootfs',
  'builder-local',
  'builder-remote',
  'ingest',
  'publish',
  'bottle',
] as const;

export const LAYERS: Readonly<Record<string, Layer>> = {
  core: { row: 0, imports: [], browser: true, reason: 'every package depends on core, so core depends on none' },
  cas: {
    row: 1,
    imports: [],
    browser: true,
    reason: 'chunks and manifests are bytes: they need no network and no image format',
  },
  context: { row: 1, imports: [], browser: true, reason: 'packing a context needs files only; builders send it' },
  transport: { row: 1, imports: [], browser: true, reason: 'HTTP knows nothing of what it carries' },
  jail: { row: 1, imports: [], reason: 'confinement is one small trusted place; it knows nothing of images' },
  oci: { row: 2, imports: ['transport', 'jail'], reason: 'image documents and layers, before any filesystem or chunk' },
  dataplane: {
    row: 2,
    imports: ['transport'],
    reason: 'objects are opaque: signing and transfer know no chunk format',
  },
  stream: {
    row: 2,
    imports: ['cas', 'transport'],
    reason: 'a block device needs a manifest and chunks, not how they were made',
  },
  rootfs: {
    row: 3,
    imports: ['cas', 'oci', 'jail'],
    reason: 'trees become pieces for cas; where they go is decided above',
  },
  'builder-local': {
    row: 3,
    imports: ['context', 'oci', 'jail'],
    reason: 'a driver ends at an OCI image; layout and upload follow above',
  },
  'builder-remote': {
    row: 3,
    imports: ['context', 'transport'],
    browser: true,
    reason: 'the client of a build service needs no engine and no disk',
  },
  ingest: {
    row: 4,
    imports: ['cas', 'dataplane', 'rootfs', 'jail'],
    reason: 'admission trusts no client code, so it shares none with publish',
  },
  publish: {
    row: 4,
    imports: ['cas', 'oci', 'rootfs', 'dataplane', 'transport'],
    reason: 'the client side of an upload; it reaches the service only over the wire',
  },
  bottle: {
    row: 4,
    imports: ['cas', 'oci', 'stream', 'rootfs', 'builder-local', 'jail'],
    reason: 'bottles take an image resolver and give a staged snapshot, so they need no server',
  },
  server: {
    row: 5,
    imports: ROWS_1_TO_4,
    reason: 'services compose the packages below; clients reach them over HTTP only',
  },
  sdk: { row: 5, imports: ROWS_1_TO_4, reason: 'the SDK is given a fetch, so it never needs the server package' },
  cli: {
    row: 6,
    imports: ['sdk', 'server'],
    reason: 'the command parses, calls the SDK and renders; logic belongs below',
  },
  testkit: {
    row: 7,
    imports: [...ROWS_1_TO_4, 'server', 'sdk', 'cli'],
    reason: 'tests reach testkit through inject, so no package depends on it',
  },
};
