import { DecantError } from '@decant/core';
import { z } from 'zod';

import { jsonFault } from './strict-json.ts';

const sizeSchema = z.number().int().min(0).max(Number.MAX_SAFE_INTEGER);
const annotationsSchema = z.record(z.string(), z.string()).nullish();

/** What lacks one of the first two, or has it empty, says nothing: the configuration does. */
const platformSchema = z.looseObject({
  os: z.string().nullish(),
  architecture: z.string().nullish(),
  variant: z.string().nullish(),
});

export const descriptorSchema = z.looseObject({
  mediaType: z.string(),
  digest: z.string(),
  size: sizeSchema,
  annotations: annotationsSchema,
  platform: platformSchema.nullish(),
});
export type Descriptor = z.infer<typeof descriptorSchema>;

/** A list; `null`, which programs in Go write for one that is empty, is one as well. */
export const descriptorsSchema = z
  .array(descriptorSchema)
  .nullable()
  .transform((list) => list ?? []);
/** Of a document; "" says as little as nothing. */
export const mediaTypeSchema = z
  .string()
  .optional()
  .transform((type) => (type === '' ? undefined : type));

export const layoutSchema = z.looseObject({ imageLayoutVersion: z.string() });

export const indexSchema = z.looseObject({
  schemaVersion: z.literal(2),
  mediaType: mediaTypeSchema,
  manifests: descriptorsSchema,
  // A document that is an index and a manifest at once is read differently by different programs.
  config: z.undefined().optional(),
  layers: z.undefined().optional(),
});
export type Index = z.infer<typeof indexSchema>;

export const manifestSchema = z.looseObject({
  schemaVersion: z.literal(2),
  mediaType: mediaTypeSchema,
  config: descriptorSchema,
  layers: descriptorsSchema,
  annotations: annotationsSchema,
  manifests: z.undefined().optional(),
  fsLayers: z.undefined().optional(),
});
export type Manifest = z.infer<typeof manifestSchema>;

const emptyRecordSchema = z.record(z.string(), z.unknown()).nullish();
const historySchema = z.looseObject({
  created: z.string().nullish(),
  created_by: z.string().nullish(),
  comment: z.string().nullish(),
  empty_layer: z.boolean().nullish(),
});

export const configSchema = z.looseObject({
  os: z.string(),
  architecture: z.string(),
  variant: z.string().nullish(),
  rootfs: z.looseObject({ type: z.literal('layers'), diff_ids: z.array(z.string()).nullish() }),
  history: z.array(historySchema).nullish(),
  config: z
    .looseObject({
      Cmd: z.array(z.string()).nullish(),
      Entrypoint: z.array(z.string()).nullish(),
      Env: z.array(z.string()).nullish(),
      ExposedPorts: emptyRecordSchema,
      Labels: z.record(z.string(), z.string()).nullish(),
      StopSignal: z.string().nullish(),
      User: z.string().nullish(),
      Volumes: emptyRecordSchema,
      WorkingDir: z.string().nullish(),
    })
    .nullish(),
});
export type ConfigDocument = z.infer<typeof configSchema>;

/** `manifest.json` of `docker save`. */
export const archiveManifestSchema = z.array(
  z.looseObject({
    Config: z.string(),
    RepoTags: z.array(z.string()).nullish(),
    Layers: z.array(z.string()).nullish(),
  }),
);
export type ArchiveManifest = z.infer<typeof archiveManifestSchema>[number];

/** Reads a JSON document of an image. @throws OCI_INVALID naming the document and the member at fault. */
export function parseDocument<T>(bytes: Uint8Array, schema: z.ZodType<T>, what: string): T {
  let json: unknown;
  let text: string;
  try {
    text = new TextDecoder('utf-8', { fatal: true }).decode(bytes);
    json = JSON.parse(text);
  } catch (error) {
    throw new DecantError('OCI_INVALID', `${what} is not JSON.`, { cause: error });
  }
  const fault = jsonFault(text);
  if (fault !== undefined) {
    throw new DecantError('OCI_INVALID', `${what} has ${fault.what}, at character ${fault.offset}.`, {
      details: { offset: fault.offset },
    });
  }
  const parsed = schema.safeParse(json);
  if (parsed.success) return parsed.data;
  const issue = parsed.error.issues[0];
  const path = issue?.path.map(String).join('.') ?? '';
  throw new DecantError(
    'OCI_INVALID',
    `${what} is not what it should be${path === '' ? '' : ` at ${path}`}: ${issue?.message ?? 'unreadable'}.`,
    { details: { path } },
  );
}
