import { DecantError, type ImageConfig } from '@decant/core';

import { configSchema, parseDocument, type ConfigDocument } from './documents.ts';
import type { LayerBlob } from './layer.ts';
import { limitError, type OciLimits } from './limits.ts';
import type { Platform } from './platform.ts';

export interface HistoryEntry {
  /** RFC 3339, as the builder wrote it. */
  readonly created?: string;
  readonly createdBy?: string;
  readonly comment?: string;
  /** Whether the step made no layer. */
  readonly emptyLayer: boolean;
}

/** A document of an image as it is stored. */
export interface ImageDocument {
  readonly mediaType: string;
  readonly bytes: Uint8Array;
}

/** One image for one platform. Its documents are checked; its layers are checked as they are read. */
export interface OciImage extends AsyncDisposable {
  /** The name that was asked for or, without one, its first name in the source; undefined when it has none. */
  readonly reference: string | undefined;
  /** All names the source gives it. */
  readonly tags: readonly string[];
  readonly platform: Platform;
  /** How it is run. */
  readonly config: ImageConfig;
  readonly history: readonly HistoryEntry[];
  /** From the bottom to the top. */
  readonly layers: readonly LayerBlob[];
  /** Undefined for a docker archive, which has no manifest in OCI's sense. */
  readonly manifestDigest: string | undefined;
  readonly configDigest: string;
  /** The checked documents as they are stored, for whoever copies the image. */
  readonly documents: { readonly manifest: ImageDocument | undefined; readonly config: ImageDocument };
  /** Bytes of all layers as stored. */
  readonly totalBytes: number;
}

export interface OpenImageOptions {
  /** A name or tag in the source; needed only where it holds several images. */
  readonly tag?: string | undefined;
  /** Default: the only platform of the image or, among several, Linux on this machine's processor. */
  readonly platform?: Platform | undefined;
  readonly limits?: Partial<OciLimits> | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** Reads a configuration. @throws OCI_INVALID */
export function parseConfig(bytes: Uint8Array, what: string): ConfigDocument {
  return parseDocument(bytes, configSchema, what);
}

export function platformOf(config: ConfigDocument): Platform {
  const { os, architecture, variant } = config;
  return typeof variant === 'string' && variant !== '' ? { os, architecture, variant } : { os, architecture };
}

/** The diff ids of a configuration, one for each of `layers` layers. @throws OCI_INVALID, LIMIT_EXCEEDED */
export function diffIdsOf(config: ConfigDocument, layers: number, limits: OciLimits): readonly string[] {
  const diffIds = config.rootfs.diff_ids ?? [];
  if (diffIds.length !== layers) {
    throw new DecantError('OCI_INVALID', `The image has ${layers} layers and ${diffIds.length} diff ids.`);
  }
  if (layers > limits.layers) {
    throw limitError(`The image has ${layers} layers, the limit is ${limits.layers}.`, {
      name: 'layers',
      value: limits.layers,
    });
  }
  return diffIds;
}

/** The part of a configuration that runs the image; empty and unknown members are left out. */
export function runConfig(document: ConfigDocument): ImageConfig {
  const run = document.config ?? {};
  const config: NonNullable<ImageConfig['config']> = {};
  if (filled(run.Cmd)) config.Cmd = run.Cmd;
  if (filled(run.Entrypoint)) config.Entrypoint = run.Entrypoint;
  if (filled(run.Env)) config.Env = run.Env;
  const ports = keysOnly(run.ExposedPorts);
  if (ports !== undefined) config.ExposedPorts = ports;
  if (run.Labels !== undefined && run.Labels !== null && Object.keys(run.Labels).length > 0) config.Labels = run.Labels;
  if (filled(run.StopSignal)) config.StopSignal = run.StopSignal;
  if (filled(run.User)) config.User = run.User;
  const volumes = keysOnly(run.Volumes);
  if (volumes !== undefined) config.Volumes = volumes;
  if (filled(run.WorkingDir)) config.WorkingDir = run.WorkingDir;
  return {
    architecture: document.architecture,
    os: document.os,
    ...(filled(document.variant) ? { variant: document.variant } : {}),
    ...(Object.keys(config).length > 0 ? { config } : {}),
  };
}

export function historyOf(document: ConfigDocument): HistoryEntry[] {
  const history: HistoryEntry[] = [];
  for (const { created, created_by: createdBy, comment, empty_layer: empty } of document.history ?? []) {
    history.push({
      ...(filled(created) ? { created } : {}),
      ...(filled(createdBy) ? { createdBy } : {}),
      ...(filled(comment) ? { comment } : {}),
      emptyLayer: empty === true,
    });
  }
  return history;
}

function filled<T extends string | readonly string[]>(value: T | null | undefined): value is T {
  return value !== undefined && value !== null && value.length > 0;
}

function keysOnly(
  record: Record<string, unknown> | null | undefined,
): Record<string, Record<string, never>> | undefined {
  const keys = Object.keys(record ?? {});
  return keys.length === 0 ? undefined : Object.fromEntries(keys.map((key) => [key, {}]));
}
