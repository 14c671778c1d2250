import { DecantError, isErrorCode, toDecantError } from '@decant/core';
import { z } from 'zod';

import { CONTROL_VERSION } from './frames.ts';

/** A text that becomes an argument, a variable or a path of a Linux program. */
const text = (most: number) =>
  z
    .string()
    .max(most)
    .refine((value) => !value.includes('\0'), 'holds a NUL character');
const path = text(4096);
const size = z.strictObject({ columns: z.int().min(1).max(1000), rows: z.int().min(1).max(1000) });
const version = z.literal(CONTROL_VERSION);

/** The first message of a client: what it wants. Everything else of the connection belongs to this call. */
export const callSchema = z.discriminatedUnion('call', [
  z.strictObject({ version, call: z.literal('info') }),
  z.strictObject({
    version,
    call: z.literal('exec'),
    argv: z
      .array(text(128 * 1024))
      .min(1)
      .max(4096),
    env: z.record(text(256).min(1), text(128 * 1024)).optional(),
    user: text(256).optional(),
    workingDir: path.optional(),
    terminal: size.optional(),
    timeoutMs: z
      .int()
      .min(1)
      .max(2 ** 31 - 1)
      .optional(),
    /** Whether stream 0 will be sent; without it the command reads the end at once. */
    stdin: z.boolean(),
  }),
  z.strictObject({ version, call: z.literal('attach'), stdin: z.boolean(), terminal: size.optional() }),
  z.strictObject({ version, call: z.literal('copy-in'), source: path.startsWith('/'), target: path.min(1) }),
  z.strictObject({ version, call: z.literal('copy-out'), source: path.min(1), target: path.startsWith('/') }),
  z.strictObject({
    version,
    call: z.literal('logs'),
    follow: z.boolean(),
    tailLines: z.int().min(0).max(1_000_000).optional(),
  }),
  z.strictObject({ version, call: z.literal('audit') }),
  z.strictObject({ version, call: z.literal('changes') }),
  z.strictObject({ version, call: z.literal('stop'), timeoutMs: z.int().min(0).max(3_600_000) }),
]);
export type Call = z.infer<typeof callSchema>;
export type CallOf<K extends Call['call']> = Extract<Call, { call: K }>;

/** What a client may send after its call. */
export const clientMessageSchema = z.discriminatedUnion('type', [
  z.strictObject({ type: z.literal('signal'), name: z.string().regex(/^SIG[A-Z0-9]{2,8}$/) }),
  z.strictObject({ type: z.literal('resize'), columns: size.shape.columns, rows: size.shape.rows }),
]);
export type ClientMessage = z.infer<typeof clientMessageSchema>;

const errorSchema = z.strictObject({
  code: z.string().max(64),
  message: z.string(),
  hint: z.string().optional(),
  details: z.record(z.string(), z.unknown()),
});

/** What a bottle's supervisor answers. `started` comes before any stream; one of the others is the last. */
export const serverMessageSchema = z.discriminatedUnion('type', [
  z.strictObject({ type: z.literal('started') }),
  z.strictObject({ type: z.literal('done'), result: z.unknown() }),
  z.strictObject({ type: z.literal('error'), error: errorSchema }),
]);
export type ServerMessage = z.infer<typeof serverMessageSchema>;

export const exitSchema = z.strictObject({
  exitCode: z.int().min(0).max(255),
  ran: z.boolean(),
  timedOut: z.boolean(),
});

/** What a bottle says about itself. */
export const bottleInfoSchema = z.strictObject({
  slug: z.string(),
  /** Of the manifest, or what the bottle was called. */
  name: z.string(),
  /** Reference that was asked for, and the image it stood for. */
  image: z.strictObject({ ref: z.string(), id: z.string() }),
  backend: z.enum(['native', 'docker']),
  command: z.array(z.string()),
  /** Whether the agent has a terminal, which `attach` then shares. */
  terminal: z.boolean(),
  state: z.enum(['running', 'stopping']),
  startedAt: z.iso.datetime(),
  /** Process that owns the bottle. */
  pid: z.int(),
  /** Whether the bottle outlives the command that started it. */
  detached: z.boolean(),
  /** Hosts and ports that routes let through, as the plan prints them. */
  routes: z.array(z.string()),
  counts: z.strictObject({
    /** Commands that run now, and clients that look at the agent. */
    execs: z.int(),
    attached: z.int(),
    /** As the fence counts. */
    egress: z.record(z.string(), z.number()),
  }),
});
export type BottleInfo = z.infer<typeof bottleInfoSchema>;

/** Checks what came over the socket. @throws BOTTLE_PROTOCOL naming the field at fault */
export function parseMessage<T>(schema: z.ZodType<T>, value: unknown, what: string): T {
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  const [issue] = parsed.error.issues;
  const at = issue?.path.join('.') ?? '';
  throw new DecantError('BOTTLE_PROTOCOL', `${what} is not valid${at === '' ? '' : ` at ${at}`}: ${issue?.message}.`, {
    hint: 'The bottle and this command may be of different versions of decant.',
  });
}

export function errorMessage(thrown: unknown): ServerMessage {
  const { code, message, hint, details } = toDecantError(thrown);
  return { type: 'error', error: { code, message, ...(hint === undefined ? {} : { hint }), details: { ...details } } };
}

export function errorOf({ code, message, hint, details }: z.infer<typeof errorSchema>): DecantError {
  return new DecantError(isErrorCode(code) ? code : 'INTERNAL', message, { hint, details });
}
