import { z } from 'zod';

/**
 * The image-builder (Together's remote builds): submit a context, follow its log, ask how it stands, cancel.
 * snake_case. What the original contract has not is marked "decant"; its clients ignore it.
 *
 *     POST   /builds               multipart/form-data, fields of {@link BUILD_FIELDS}  → 202 {@link buildSchema}
 *     GET    /builds               ?limit=&cursor=&status=                              → 200 {@link buildListSchema}
 *     GET    /builds/{id}                                                               → 200 {@link buildSchema}
 *     GET    /builds/{id}/logs     server-sent events, see below
 *     DELETE /builds/{id}                                                               → 204, also for an unknown id
 *
 * The log is a stream of unnamed events, each with `id:`, which counts lines from 1 and goes on counting when a
 * build starts again. `Last-Event-ID` (or `?after=`) continues behind that line. The last event is control and comes
 * exactly once on a connection: `{"done": true}` or `{"error": "text"}`. A line of output that a client could take for
 * control is escaped by {@link escapeLogLine}. Comments (`: `) are heartbeats and carry nothing.
 * Errors are {@link builderErrorSchema}.
 */

/** Names of the parts of a submission. */
export const BUILD_FIELDS = {
  /** `NAME[:TAG]`; the namespace comes from the key. */
  imageName: 'image_name',
  /** Path of the Dockerfile in the context; default `Dockerfile`. */
  dockerfile: 'dockerfile',
  /** JSON object of strings. */
  buildArgs: 'build_args',
  /** `true` (the default): registration makes a streaming image; `false`: an ext4 image. */
  nydusConvert: 'nydus_convert',
  /** Builds with the same key share a layer cache; default: the image's name without its tag. */
  cacheKey: 'cache_key',
  /** The file part: a tar archive, as it is or compressed by gzip. */
  context: 'context',
  /** decant: stage to build. */
  target: 'target',
  /** decant: `use` (the default), `ignore` or `refresh`. */
  cache: 'cache',
  /** decant: architecture the image must have, `amd64` or `arm64`. */
  architecture: 'architecture',
  /** decant: instead of the file part, the id of a context that was sent as its files (context-files.ts). */
  contextId: 'context_id',
  /** decant: text of a Dockerfile that is not in the context; `dockerfile` then only names it in messages. */
  dockerfileText: 'dockerfile_text',
} as const;

/** Header by which a submission that is sent again answers with the build of the first one. */
export const IDEMPOTENCY_KEY_HEADER = 'idempotency-key';

/** A lowercase path of letters, digits and `. _ - /`, without a tag, of at most 255 characters. */
export const cacheKeySchema = z
  .string()
  .max(255)
  .regex(
    /^[a-z0-9][a-z0-9._-]*(?:\/[a-z0-9][a-z0-9._-]*)*$/,
    'must be a lowercase path of letters, digits and . _ - /',
  );

export const BUILD_CACHE_MODES = ['use', 'ignore', 'refresh'] as const;

/** The text fields of a submission, by their names in the form. */
export const buildFieldsSchema = z.object({
  image_name: z.string().min(1).max(400),
  dockerfile: z.string().min(1).max(4096).default('Dockerfile'),
  build_args: z.record(z.string().min(1).max(256), z.string().max(65_536)).default({}),
  nydus_convert: z.boolean().default(true),
  cache_key: cacheKeySchema.optional(),
  target: z.string().min(1).max(256).optional(),
  cache: z.enum(BUILD_CACHE_MODES).default('use'),
  architecture: z.enum(['amd64', 'arm64']).optional(),
  dockerfile_text: z
    .string()
    .max(1024 * 1024)
    .optional(),
  context_id: z
    .string()
    .regex(/^[0-9a-f]{64}$/)
    .optional(),
});
export type BuildFields = z.infer<typeof buildFieldsSchema>;

export const REMOTE_BUILD_STATUSES = ['queued', 'running', 'succeeded', 'failed', 'cancelled'] as const;
export type RemoteBuildStatus = (typeof REMOTE_BUILD_STATUSES)[number];

export const remoteBuildErrorSchema = z.looseObject({
  /** A code of decant's table, for example BUILD_STEP_FAILED. */
  code: z.string(),
  message: z.string(),
  hint: z.string().nullable().default(null),
  /** Step, command, exit code and last lines of a failed step, where they are known. */
  details: z.record(z.string(), z.unknown()).default({}),
});
export type RemoteBuildError = z.infer<typeof remoteBuildErrorSchema>;

/** A build as the service tells it. Only `build_id` and, after success, `image_ref` are of the original contract. */
export const buildSchema = z.looseObject({
  build_id: z.string(),
  status: z.enum(REMOTE_BUILD_STATUSES),
  image_name: z.string(),
  /** The image in the registry beside this service, by name and digest; absent until the build has succeeded. */
  image_ref: z.string().optional(),
  architecture: z.enum(['amd64', 'arm64']).nullable(),
  nydus_convert: z.boolean(),
  cache_key: z.string(),
  /** Builds that start before this one and this one, while it is queued; else null. */
  position: z.number().int().nullable(),
  /** How often it was started: 2 after the worker of the first start was lost. */
  attempt: z.number().int(),
  /** What builds it, for people; null until it runs. */
  engine: z.string().nullable(),
  /** Lines of its log so far. */
  log_lines: z.number().int(),
  error: remoteBuildErrorSchema.nullable(),
  created_at: z.string(),
  started_at: z.string().nullable(),
  finished_at: z.string().nullable(),
});
export type RemoteBuild = z.infer<typeof buildSchema>;

export const buildListSchema = z.looseObject({
  data: z.array(buildSchema),
  next_cursor: z.string().nullable(),
});

/** The control events that end a log. */
export const buildEndSchema = z.union([z.object({ done: z.literal(true) }), z.object({ error: z.string() })]);

/** The shape of errors on the builder's and the snapshot registry's routes. */
export const builderErrorSchema = z.looseObject({
  code: z.string(),
  message: z.string(),
  errors: z
    .array(
      z.looseObject({
        parameter: z.string().optional(),
        code: z.string().optional(),
        message: z.string().optional(),
        details: z.unknown().optional(),
      }),
    )
    .default([]),
  /** decant: what to do. */
  hint: z.string().optional(),
});
export type BuilderError = z.infer<typeof builderErrorSchema>;

const CONTROL_LIKE = /^ *\{.*"(?:done|error)"/;

/**
 * A line of output as the log carries it: one that clients could take for control, or that looks like one which was
 * escaped, gets one more space in front.
 */
export function escapeLogLine(line: string): string {
  return CONTROL_LIKE.test(line) ? ` ${line}` : line;
}

/** The line that {@link escapeLogLine} was given. */
export function unescapeLogLine(text: string): string {
  return text.startsWith(' ') && CONTROL_LIKE.test(text) ? text.slice(1) : text;
}

/** The end that an event's data stands for, or undefined when it is a line of output. */
export function buildEndOf(data: string): z.infer<typeof buildEndSchema> | undefined {
  if (!data.startsWith('{') || !CONTROL_LIKE.test(data)) return undefined;
  try {
    return buildEndSchema.safeParse(JSON.parse(data)).data;
  } catch {
    return undefined;
  }
}
