import { z } from 'zod';

/**
 * `POST /api/v1/blob/sign`, the contract between a builder and its dataplane: snake_case request,
 * camelCase answer. The dataplane composes the URI; a client treats it as the truth.
 */

/** Bytes of every part but the last: 64 MiB. */
export const PART_BYTES = 64 * 1024 * 1024;
/** Most parts of one upload. */
export const MAX_PARTS = 10_000;

export const blobSignRequestSchema = z.strictObject({
  target: z.discriminatedUnion('kind', [
    z.strictObject({ kind: z.literal('artifact'), rel_path: z.string().min(1).max(1024) }),
    z.strictObject({ kind: z.literal('blob'), uri: z.string().min(1).max(2048) }),
  ]),
  op: z.discriminatedUnion('kind', [
    z.strictObject({
      kind: z.literal('put_artifact'),
      multipart_hint: z
        .strictObject({
          max_parts: z.number().int().min(1).max(MAX_PARTS),
          part_size_bytes: z.number().int().min(1),
        })
        .optional(),
    }),
    z.strictObject({ kind: z.literal('get_blob') }),
  ]),
});
export type BlobSignRequest = z.infer<typeof blobSignRequestSchema>;

export const signedMultipartSchema = z.looseObject({
  kind: z.literal('s3_multipart'),
  /** Where the object will be; the only name of it that a client may use afterwards. */
  uri: z.string(),
  uploadId: z.string(),
  partSizeBytes: z.number().int().positive(),
  /** URL of part n at index n - 1; `PUT`, the answer's `ETag` belongs into the completion. */
  partUrls: z.array(z.string()).min(1).max(MAX_PARTS),
  /** `POST` with S3's CompleteMultipartUpload document. */
  completeUrl: z.string(),
  /** `DELETE`. */
  abortUrl: z.string(),
  expiresAt: z.string(),
});
export type SignedMultipart = z.infer<typeof signedMultipartSchema>;

export const signedGetSchema = z.looseObject({
  kind: z.literal('single_get'),
  uri: z.string(),
  method: z.literal('GET'),
  url: z.string(),
  headers: z.record(z.string(), z.string()),
  expiresAt: z.string(),
});
export type SignedGet = z.infer<typeof signedGetSchema>;
