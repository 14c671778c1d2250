import { z } from 'zod';

/** decant's own plane: images, names, chunk negotiation and the read plane. camelCase. */

/** Ids asked about in one call. */
export const MAX_MISSING_IDS = 16_384;

const chunkIdsSchema = z.array(z.string().regex(/^[0-9a-f]{64}$/)).max(MAX_MISSING_IDS);

export const missingChunksRequestSchema = z.strictObject({ ids: chunkIdsSchema });
export const missingChunksResponseSchema = z.object({ missing: z.array(z.string()) });

/** Chunks of one image that a reader could not verify, for the server to look at. */
export const checkChunksRequestSchema = z.strictObject({ ids: chunkIdsSchema });
export const checkChunksResponseSchema = z.object({
  /** Those that are damaged at rest. They count as missing from now on. */
  damaged: z.array(z.string()),
  /** The locator at rest was not what it has to be, and has been written again. */
  relocated: z.boolean(),
});

/** The part of an image's configuration that runs it: OCI's `config` object, empty members left out. */
export const imageConfigSchema = z.strictObject({
  architecture: z.string().optional(),
  os: z.string().optional(),
  variant: z.string().optional(),
  config: z
    .strictObject({
      Cmd: z.array(z.string()).optional(),
      Entrypoint: z.array(z.string()).optional(),
      Env: z.array(z.string()).optional(),
      ExposedPorts: z.record(z.string(), z.object({})).optional(),
      Labels: z.record(z.string(), z.string()).optional(),
      StopSignal: z.string().optional(),
      User: z.string().optional(),
      Volumes: z.record(z.string(), z.object({})).optional(),
      WorkingDir: z.string().optional(),
    })
    .optional(),
});
export type ImageConfig = z.infer<typeof imageConfigSchema>;

export const imageFormatSchema = z.enum(['cas-streaming', 'ext4']);
export type ImageFormat = z.infer<typeof imageFormatSchema>;

export const imageRecordSchema = z.object({
  id: z.string(),
  format: imageFormatSchema,
  /** Filesystem inside: erofs and ext4 can be mounted; raw is anything else. */
  filesystem: z.enum(['erofs', 'ext4', 'raw']),
  /** Whether decant's own writer laid it out. */
  layout: z.enum(['hinted', 'foreign']),
  architecture: z.enum(['amd64', 'arm64']).nullable(),
  virtualBytes: z.number().int(),
  /** Bytes that are not holes. */
  contentBytes: z.number().int(),
  /** Distinct chunks; null for an image that is one object. */
  chunks: z.number().int().nullable(),
  /** Bytes of its chunks, or of its one object, as stored; shared ones count in full. */
  storedBytes: z.number().int(),
  createdAt: z.string(),
});
export type ImageRecord = z.infer<typeof imageRecordSchema>;

export const namedImageSchema = z.object({
  name: z.string(),
  tag: z.string(),
  /** When the name came to point at this image. */
  updatedAt: z.string(),
  image: imageRecordSchema,
});
export type NamedImage = z.infer<typeof namedImageSchema>;

/** `GET /v1/images/{ref}`: by name, or by id with `name` null. */
export const imageDetailSchema = z.object({
  name: z.string().nullable(),
  tag: z.string().nullable(),
  updatedAt: z.string().nullable(),
  /** Bytes of the writable disk that the name asks for; 0 when nothing was said. */
  diskBytes: z.number().int(),
  image: imageRecordSchema,
  config: imageConfigSchema.nullable(),
});
export type ImageDetail = z.infer<typeof imageDetailSchema>;

export const imageListSchema = z.object({ images: z.array(namedImageSchema), nextCursor: z.string().nullable() });

export const nameHistorySchema = z.object({
  versions: z.array(
    z.object({
      version: z.number().int(),
      /** Null: the name was removed. */
      imageId: z.string().nullable(),
      createdAt: z.string(),
    }),
  ),
});
export type NameHistory = z.infer<typeof nameHistorySchema>;

export const setNameRequestSchema = z.strictObject({ imageId: z.string() });

/** Signed reads of the packs of an image's locator, by their number there. */
export const signPacksRequestSchema = z.strictObject({
  packs: z.array(z.number().int().nonnegative()).min(1).max(1024),
});
export const signPacksResponseSchema = z.object({
  packs: z.array(z.object({ pack: z.number().int(), url: z.string() })),
  expiresAt: z.string(),
});

export const signedArtifactSchema = z.object({
  url: z.string(),
  encoding: z.enum(['zstd']),
  sizeBytes: z.number().int(),
  storedBytes: z.number().int(),
  expiresAt: z.string(),
});

export const apiKeySchema = z.object({
  id: z.string(),
  namespace: z.string(),
  createdAt: z.string(),
  revokedAt: z.string().nullable(),
});
export type ApiKey = z.infer<typeof apiKeySchema>;
export const createKeyRequestSchema = z.strictObject({ namespace: z.string().optional() });
export const createdKeySchema = apiKeySchema.extend({ key: z.string() });
export const keyListSchema = z.object({ keys: z.array(apiKeySchema) });

/** A collection of the registry: removes the bytes that no manifest has needed for so long, or for the server's own time. */
export const collectRegistryRequestSchema = z.strictObject({ graceSeconds: z.number().int().min(0).optional() });
export const collectRegistryResponseSchema = z.object({
  namespaces: z.array(
    z.object({
      namespace: z.string(),
      unlinked: z.number(),
      removed: z.number(),
      removedBytes: z.number(),
      waiting: z.number(),
    }),
  ),
});
/** What a collection did in each namespace: see `RegistryCollection` of `@decant/oci`. */
export type CollectedRegistry = z.infer<typeof collectRegistryResponseSchema>;
