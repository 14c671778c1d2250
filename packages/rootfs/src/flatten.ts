import { DecantError, formatBytes, isDecantError, stage, type OnEvent } from '@decant/core';
import { limitError, readTar, showBytes, type OciImage, type TarEntry } from '@decant/oci';

import { applyLayer, checkEntry } from './flatten-layer.ts';
import { DEFAULT_FLATTEN_LIMITS, type FlattenLimits } from './flatten-limits.ts';
import type { Whiteouts } from './flatten-marks.ts';
import { newDirectory, type GrowingDirectory } from './flatten-tree.ts';
import type { Scratch } from './scratch.ts';
import type { DirectoryNode } from './tree.ts';

export interface FlattenOptions {
  /** Takes the unpacked layers; the tree refers to it, so it must live as long as the tree is used. */
  readonly scratch: Scratch;
  readonly limits?: Partial<FlattenLimits> | undefined;
  readonly onEvent?: OnEvent | undefined;
  readonly signal?: AbortSignal | undefined;
}

export interface FlattenedTree {
  readonly root: DirectoryNode;
  /** What was left out and why, one sentence each, at most 100. */
  readonly warnings: readonly string[];
}

/** One tar archive of changes, opened when its turn comes. */
export interface LayerArchive {
  /** For messages. */
  readonly name: string;
  open(): AsyncIterable<Uint8Array>;
}

const MAX_WARNINGS = 100;
const PROGRESS_BYTES = 8 * 1024 * 1024;

/**
 * Merges the layers of an image, bottom to top, into one tree in memory. Each layer is unpacked once, into the
 * scratch file, while its headers are read; no name from a layer is ever used as a path of this machine. The
 * rules are those of the OCI layer specification where it has any; a parent that is a symlink is followed inside
 * the root, and names with `..` are refused.
 * @throws LAYER_INVALID for a broken or hostile layer, LIMIT_EXCEEDED, OCI_DIGEST_MISMATCH, DISK_FULL.
 */
export function flattenImage(image: Pick<OciImage, 'layers'>, options: FlattenOptions): Promise<FlattenedTree> {
  const inputs = image.layers.map((layer, i) => ({
    name: `layer ${i + 1} of ${image.layers.length}, ${layer.digest}`,
    open: () => layer.open({ lend: true, signal: options.signal }),
  }));
  return flatten(inputs, 'oci', options);
}

/**
 * The same for one plain tar archive of a root filesystem. It has no whiteouts: names like theirs are names. Errors call it
 * `name`; default "the archive".
 */
export function flattenTar(
  archive: AsyncIterable<Uint8Array>,
  options: FlattenOptions & { readonly name?: string | undefined },
): Promise<FlattenedTree> {
  return flatten([{ name: options.name ?? 'the archive', open: () => archive }], 'none', options);
}

/**
 * The same for archives of the upper directories of an overlay filesystem, bottom to top, with its whiteouts.
 * @throws OCI_UNSUPPORTED for directories that were renamed, which refer to names below.
 */
export function flattenOverlay(layers: readonly LayerArchive[], options: FlattenOptions): Promise<FlattenedTree> {
  return flatten(layers, 'overlay', options);
}

/**
 * Applies OCI layers, bottom to top, to a tree that is there already, as those of an image are to the ones below. The
 * tree becomes the new one; when a layer is refused it is of no use any more.
 */
export function flattenOnto(
  base: DirectoryNode,
  layers: readonly LayerArchive[],
  options: FlattenOptions,
): Promise<FlattenedTree> {
  // A finished tree is a growing one that nobody grows: its directories are the same objects.
  return flatten(layers, 'oci', options, base as GrowingDirectory);
}

function flatten(
  inputs: readonly LayerArchive[],
  whiteouts: Whiteouts,
  options: FlattenOptions,
  root = newDirectory(),
): Promise<FlattenedTree> {
  const limits = { ...DEFAULT_FLATTEN_LIMITS, ...options.limits };
  return stage(options.onEvent, 'layers', async (finish) => {
    const state: State = {
      root,
      limits,
      whiteouts,
      options,
      entries: 0,
      metadataBytes: 0,
      bytes: 0,
      warnings: [],
      totalLayers: inputs.length,
    };
    for (const [i, input] of inputs.entries()) {
      try {
        await addLayer(input, i, state);
      } catch (error) {
        throw inLayer(error, input, i);
      }
    }
    finish({ bytes: state.bytes, items: inputs.length });
    return { root, warnings: state.warnings };
  });
}

interface State {
  readonly root: GrowingDirectory;
  readonly whiteouts: Whiteouts;
  readonly limits: FlattenLimits;
  readonly options: FlattenOptions;
  readonly totalLayers: number;
  readonly warnings: string[];
  entries: number;
  metadataBytes: number;
  bytes: number;
}

async function addLayer(input: LayerArchive, done: number, state: State): Promise<void> {
  const { limits, options } = state;
  const blobBase = options.scratch.sizeBytes;
  const planned: TarEntry[] = [];
  for await (const entry of readTar(keep(input.open(), done, state), { limits, signal: options.signal })) {
    countEntry(state);
    countMetadata(entry, state);
    checkEntry(entry, limits);
    planned.push(entry);
  }
  // Only here is the layer known to be what was declared: its source throws before its end when it is not.
  await applyLayer(state.root, planned, {
    limits,
    blob: options.scratch,
    blobBase,
    whiteouts: state.whiteouts,
    warn: (entry, what) => warn(state, entry, what),
    onImplicit: () => countEntry(state),
    signal: options.signal,
  });
  const items = done + 1;
  options.onEvent?.({
    type: 'stage-progress',
    stage: 'layers',
    bytes: state.bytes,
    items,
    totalItems: state.totalLayers,
  });
}

function countEntry(state: State): void {
  if (++state.entries > state.limits.entries) {
    throw limitError(`The layers have more than ${state.limits.entries} entries.`, {
      name: 'entries',
      value: state.limits.entries,
    });
  }
}

const RUN_BYTES = 16;

function countMetadata(entry: TarEntry, state: State): void {
  let bytes = entry.path.length + entry.linkPath.length + (entry.sparse?.length ?? 0) * RUN_BYTES;
  for (const { name, value } of entry.xattrs) bytes += name.length + value.length;
  state.metadataBytes += bytes;
  const limit = state.limits.totalMetadataBytes;
  if (state.metadataBytes > limit) {
    throw limitError(`The names and attributes in the layers have more than ${limit} bytes.`, {
      name: 'totalMetadataBytes',
      value: limit,
    });
  }
}

/** Writes what passes by to the scratch file. */
async function* keep(source: AsyncIterable<Uint8Array>, done: number, state: State): AsyncGenerator<Uint8Array> {
  const { limits, options } = state;
  let reported = state.bytes;
  for await (const piece of source) {
    options.signal?.throwIfAborted();
    state.bytes += piece.length;
    if (state.bytes > limits.layerBytes) {
      throw limitError(`The layers unpack to more than ${formatBytes(limits.layerBytes)}.`, {
        name: 'layerBytes',
        value: limits.layerBytes,
      });
    }
    await options.scratch.append(piece);
    if (state.bytes - reported >= PROGRESS_BYTES) {
      reported = state.bytes;
      const { bytes, totalLayers: totalItems } = state;
      options.onEvent?.({ type: 'stage-progress', stage: 'layers', bytes, items: done, totalItems });
    }
    yield piece;
  }
}

function warn(state: State, entry: TarEntry, what: string): void {
  if (state.warnings.length >= MAX_WARNINGS) return;
  const last = state.warnings.length === MAX_WARNINGS - 1;
  const message = last ? 'There are more warnings, which are not shown.' : `${showBytes(entry.path)}: ${what}.`;
  state.warnings.push(message);
  state.options.onEvent?.({ type: 'warning', stage: 'layers', message });
}

/** The same error with the layer it happened in. */
function inLayer(error: unknown, input: LayerArchive, index: number): unknown {
  if (!isDecantError(error, 'LAYER_INVALID') && !isDecantError(error, 'LIMIT_EXCEEDED')) return error;
  return new DecantError(error.code, error.message.replace(/\.$/, ` (${input.name}).`), {
    hint: error.hint,
    details: { ...error.details, layer: index },
    cause: error,
  });
}
