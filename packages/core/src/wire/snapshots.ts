import { z } from 'zod';

/**
 * The snapshot registry (Together's management API), below `/v1`. snake_case; times are RFC 3339.
 *
 *     POST   /snapshots                    {@link createSnapshotSchema}  → 201 {@link snapshotSchema}
 *     GET    /snapshots                    ?limit=1..100&cursor=&tags[k]=v&exclude_retired=  → 200 {@link snapshotPageSchema}
 *     GET    /snapshots/batch              ?ids[]=…, at most 100, none twice  → 200 array, in that order, missing left out
 *     GET    /snapshots/{id}, /snapshots/@{alias}
 *     POST   /snapshots/{id}/retire        → 200 {@link snapshotSchema}
 *     GET    /snapshots/{id}/aliases       → 200 array of {@link snapshotAliasSchema}
 *     POST   /snapshots/{id}/aliases       {@link setAliasSchema}  → 204; an alias that exists moves
 *     DELETE /snapshot-aliases/{alias}     → 204
 *     POST   /authorize                    {@link authorizeSchema}  → 204
 */

/** At most 59 characters of letters, digits and `. _ -`, with a letter or digit at both ends. */
export const tagKeySchema = z
  .string()
  .regex(/^[A-Za-z0-9](?:[A-Za-z0-9._-]{0,57}[A-Za-z0-9])?$/, 'must be 1 to 59 letters, digits, . _ -');

export const MAX_SNAPSHOT_TAGS = 50;

export const snapshotTagsSchema = z
  .record(tagKeySchema, z.string().max(256))
  .refine((tags) => Object.keys(tags).length <= MAX_SNAPSHOT_TAGS, `at most ${MAX_SNAPSHOT_TAGS} tags`);

/** `tag` or `namespace@tag`, of at most 255 visible ASCII characters without `/`. */
export const snapshotAliasNameSchema = z
  .string()
  .regex(/^[A-Za-z0-9](?:[A-Za-z0-9._:@+-]{0,254})$/, 'must be 1 to 255 letters, digits and . _ : @ + -');

export const createSnapshotSchema = z.looseObject({
  /** An image in the registry beside this service. */
  image: z.string().min(1).max(1024),
  /** Refused when the image is of another one. */
  architecture: z.enum(['amd64', 'arm64']).optional(),
  /** Seconds until it is retired. */
  ttl: z
    .number()
    .int()
    .min(1)
    .max(100 * 365 * 24 * 3600)
    .optional(),
  tags: snapshotTagsSchema.optional(),
  /** decant: default is what the build asked for by `nydus_convert`, or ext4 for an image that no build made. */
  format: z.enum(['ext4', 'cas-streaming']).optional(),
});
export type CreateSnapshot = z.input<typeof createSnapshotSchema>;

export const snapshotSchema = z.looseObject({
  id: z.string(),
  organization_id: z.string().nullish(),
  project_id: z.string(),
  byte_size: z.number().int(),
  tags: z.record(z.string(), z.string()),
  /** Seconds after creation. */
  ttl: z.number().int().nullish(),
  /** Whether it holds a running machine's memory; never, of those made from an image. */
  memory: z.boolean(),
  created_at: z.string(),
  retired_at: z.string().nullish(),
  updated_at: z.string(),
  /** decant: the admitted image. */
  image_id: z.string().optional(),
  /** decant: `NAME:TAG` that was given to the image. */
  image_name: z.string().optional(),
  /** decant */
  format: z.enum(['ext4', 'cas-streaming']).optional(),
  /** decant */
  architecture: z.enum(['amd64', 'arm64']).optional(),
});
export type Snapshot = z.infer<typeof snapshotSchema>;

export const snapshotPageSchema = z.looseObject({
  data: z.array(snapshotSchema),
  next_cursor: z.string().nullable(),
});
export const snapshotBatchSchema = z.array(snapshotSchema);
export const MAX_SNAPSHOT_BATCH = 100;

export const setAliasSchema = z.looseObject({ alias: snapshotAliasNameSchema });
export const snapshotAliasSchema = z.looseObject({
  snapshot_id: z.string(),
  alias: z.string(),
  created_at: z.string(),
});
export type SnapshotAlias = z.infer<typeof snapshotAliasSchema>;
export const snapshotAliasListSchema = z.array(snapshotAliasSchema);

export const authorizeSchema = z.looseObject({ project_id: z.string().min(1).max(512) });
