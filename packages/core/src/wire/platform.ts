import { z } from 'zod';

/**
 * The platform plane (Tensorlake's image builds): prepare → upload → complete → poll, camelCase.
 * Unknown members of a prepare answer travel on to the builder, so its schema is loose.
 */

export const ROOTFS_FORMATS = ['ext4', 'cas-streaming'] as const;
export type RootfsFormat = (typeof ROOTFS_FORMATS)[number];

/** Version strings a completion declares. */
export const FORMAT_VERSIONS = {
  ext4: 'durable_archive_v1',
  'cas-streaming': 'content_addressed_streaming_v1',
} as const satisfies Record<RootfsFormat, string>;

/** Names of what a builder stages below the prefix of its build. */
export const STAGED = {
  /** cas-streaming: packs are `packs/` and a number of six digits, in image order. */
  packs: 'packs',
  manifest: 'manifest',
  /** RFC 8785 JSON of the image's configuration; absent when it has none. */
  config: 'config.json',
  /** ext4: the raw image as one zstd stream. */
  archive: 'rootfs.ext4.zst',
} as const;

export const prepareRequestSchema = z.looseObject({
  /** `NAME[:TAG]` the finished image gets. */
  name: z.string().min(1).max(400),
  dockerfile: z
    .string()
    .max(1024 * 1024)
    .default(''),
  baseImage: z.string().max(1024).default(''),
  public: z.boolean().default(false),
  rootfsNodeKind: z.enum(['base', 'diff']).default('base'),
  rootfsFormat: z.enum(ROOTFS_FORMATS).default('ext4'),
});
export type PrepareRequest = z.input<typeof prepareRequestSchema>;

export const prepareResponseSchema = z.looseObject({
  buildId: z.string(),
  snapshotId: z.string(),
  /** Prefix (cas-streaming) or object (ext4) that the builder asks the dataplane to sign. */
  snapshotRelPath: z.string(),
  rootfsNodeKind: z.enum(['base', 'diff']),
  rootfsFormat: z.enum(ROOTFS_FORMATS),
});
export type PrepareResponse = z.infer<typeof prepareResponseSchema>;

export const templateSchema = z.looseObject({
  id: z.string(),
  name: z.string(),
  snapshotId: z.string(),
  snapshotUri: z.string(),
  snapshotFormatVersion: z.string(),
  snapshotSizeBytes: z.number().int(),
  rootfsDiskBytes: z.number().int(),
  rootfsNodeKind: z.enum(['base', 'diff']),
  public: z.boolean(),
  /** decant: the admitted image. */
  imageId: z.string(),
  /** decant: what admission found new, and what it stored. */
  admission: z
    .object({
      chunksTotal: z.number().int(),
      chunksNew: z.number().int(),
      newBytes: z.number().int(),
      storedBytes: z.number().int(),
    })
    .optional(),
});
export type Template = z.infer<typeof templateSchema>;

export const completeRequestSchema = z.looseObject({
  snapshotId: z.string(),
  /** cas-streaming: URI of the staged manifest; ext4: URI of the staged artifact. */
  snapshotUri: z.string(),
  snapshotFormatVersion: z.string(),
  /** Bytes of the image as a disk. */
  snapshotSizeBytes: z.coerce.number().int().nonnegative(),
  /** Bytes of the writable disk the image asks for. */
  rootfsDiskBytes: z.coerce.number().int().nonnegative(),
  rootfsNodeKind: z.enum(['base', 'diff']).default('base'),
  parentManifestUri: z.string().optional(),
  rootfsFormat: z.enum(ROOTFS_FORMATS).optional(),
  /** decant: whether its own writer made an ext4 image; a streaming image says so in its manifest. */
  layout: z.enum(['hinted', 'foreign']).default('foreign'),
});
export type CompleteRequest = z.infer<typeof completeRequestSchema>;

/** `GET …/sandbox-template-builds/{id}`, and the body of a 202 from `/complete`. */
export const templateBuildSchema = z.looseObject({
  buildId: z.string(),
  status: z.enum(['prepared', 'ingesting', 'completed', 'failed']),
  template: templateSchema.optional(),
  /** Why it failed, for people; `problem` has it for programs. */
  error: z.string().optional(),
  problem: z.looseObject({ code: z.string(), hint: z.string().optional() }).optional(),
  /** decant: how far admission has come. */
  progress: z.object({ bytes: z.number().int(), totalBytes: z.number().int() }).optional(),
});
export type TemplateBuild = z.infer<typeof templateBuildSchema>;

/** The answer of `/complete`: the template (200), or the build that is being admitted (202). */
export const completeResponseSchema = z.union([templateBuildSchema, templateSchema]);
