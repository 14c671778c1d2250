import { DecantError, type DecantErrorOptions } from '@decant/core';
import type { BlobSigner } from '@decant/dataplane';
import type { Context } from 'hono';
import type { z } from 'zod';

import type { Principal } from './auth.ts';
import type { Services } from './services.ts';

/** What a request carries through the routes. `operator` is set only by callers in this process: it is who they say. */
export interface ServerEnv {
  Bindings: { operator?: Principal };
  Variables: { principal: Principal; services: Services };
}

export type RouteContext = Context<ServerEnv>;

/** Most bytes of a JSON request body. */
export const MAX_JSON_BYTES = 4 * 1024 * 1024;

/** Reads and checks a JSON body. @throws USAGE naming the member at fault, LIMIT_EXCEEDED for a body over 4 MiB. */
export async function jsonBody<S extends z.ZodType>(c: RouteContext, schema: S): Promise<z.infer<S>> {
  const text = await boundedText(c.req.raw);
  let value: unknown;
  try {
    value = JSON.parse(text === '' ? 'null' : text);
  } catch (error) {
    throw new DecantError('USAGE', 'The request body is not JSON.', { cause: error });
  }
  return checked(schema, value, 'The request body');
}

/** The value as the schema has it. @throws USAGE with the path of the first member at fault. */
export function checked<S extends z.ZodType>(schema: S, value: unknown, what: string): z.infer<S> {
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  const issue = result.error.issues[0];
  const options: DecantErrorOptions = { details: { path: issue?.path.map(String) ?? [] } };
  const where = issue === undefined || issue.path.length === 0 ? '' : ` at ${issue.path.map(String).join('.')}`;
  throw new DecantError('USAGE', `${what} is not valid${where}: ${issue?.message ?? 'unknown'}.`, options);
}

async function boundedText(request: Request): Promise<string> {
  const decoder = new TextDecoder();
  let text = '';
  let bytes = 0;
  for await (const piece of request.body ?? []) {
    bytes += piece.length;
    if (bytes > MAX_JSON_BYTES) {
      throw new DecantError('LIMIT_EXCEEDED', `The request body is larger than ${MAX_JSON_BYTES} bytes.`);
    }
    text += decoder.decode(piece, { stream: true });
  }
  return text + decoder.decode();
}

/** Where callers reach this server: the public URL it was given, or the one of this request. */
export function originOf(c: RouteContext): string {
  return c.var.services.publicOrigin ?? new URL(c.req.url).origin;
}

/** The host in names of images in this server's registry. */
export function registryHostOf(c: RouteContext): string {
  return new URL(originOf(c)).host;
}

/** A signer whose URLs lead to this server as the caller reaches it. */
export function originSigner(c: RouteContext): BlobSigner {
  return c.var.services.signerFor(originOf(c));
}

/** Streams stored bytes as a response. */
export function bytesResponse(body: AsyncIterable<Uint8Array>, sizeBytes: number): Response {
  const stream = ReadableStream.from(body) as ReadableStream<Uint8Array<ArrayBuffer>>;
  return new Response(stream, {
    headers: { 'content-type': 'application/octet-stream', 'content-length': String(sizeBytes) },
  });
}
