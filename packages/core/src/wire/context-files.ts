import { z } from 'zod';

/**
 * Sending a build context as its files, of which the service may have most (decant). snake_case, below `/builds`.
 *
 *     POST /builds/contexts             a manifest, gzip-compressed JSON of {@link contextManifestSchema}
 *                                       → 200 {@link contextAnswerSchema}: its id and the files to send
 *     POST /builds/contexts/{id}/files  a pack of such files, gzip-compressed → 204
 *     POST /builds                      with the id as `context_id` instead of the file part `context`
 *
 * A pack is a sequence of files, each behind a header of {@link CONTEXT_FILE_HEADER_BYTES} bytes:
 *
 *     | SHA-256 of the content, 32 bytes | length of the content, 8 bytes, big-endian | content |
 *
 * Nothing of a pack is visible before all of it has been read and every digest was right; what an upload that was cut
 * had completed before stays, so asking again tells what is still to be sent. Files belong to a namespace: the answer
 * says nothing of those of others. They go when no manifest has named them for {@link CONTEXT_FILES_EXPIRE_MS}.
 */
export const CONTEXT_FILE_HEADER_BYTES = 40;

/** Most bytes of a manifest before compression. */
export const MAX_CONTEXT_MANIFEST_BYTES = 64 * 1024 * 1024;
/** Most entries of a manifest. */
export const MAX_CONTEXT_ENTRIES = 250_000;
/** How long files are kept after they were last named, in milliseconds: a week. */
export const CONTEXT_FILES_EXPIRE_MS = 7 * 24 * 60 * 60 * 1000;

const sha256 = z.string().regex(/^[0-9a-f]{64}$/);
const path = z.string().min(1).max(4096);
const base64 = z.base64().min(1).max(8192);
const common = {
  path,
  /** The exact bytes, only when they are not UTF-8. */
  path_bytes: base64.optional(),
  mode: z.number().int().min(0).max(0o7777),
};
const link = { link_target: path, link_target_bytes: base64.optional() };

export const contextEntrySchema = z.discriminatedUnion('type', [
  z.strictObject({
    ...common,
    type: z.literal('file'),
    size_bytes: z.number().int().nonnegative(),
    sha256,
  }),
  z.strictObject({ ...common, type: z.literal('directory') }),
  z.strictObject({ ...common, ...link, type: z.literal('symlink') }),
  z.strictObject({ ...common, ...link, type: z.literal('hardlink') }),
]);
export type ContextManifestEntry = z.infer<typeof contextEntrySchema>;

/** Entries sorted by the bytes of their paths, as they stand in the archive. */
export const contextManifestSchema = z.strictObject({
  version: z.literal(1),
  entries: z.array(contextEntrySchema).max(MAX_CONTEXT_ENTRIES),
});
export type ContextManifest = z.infer<typeof contextManifestSchema>;

/** SHA-256 of the manifest's bytes before compression. */
export const contextIdSchema = sha256;

export const contextAnswerSchema = z.looseObject({
  context_id: contextIdSchema,
  /** Digests of the files to send, each once. */
  missing: z.array(sha256).max(MAX_CONTEXT_ENTRIES),
});
export type ContextAnswer = z.infer<typeof contextAnswerSchema>;
