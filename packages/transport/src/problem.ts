import {
  DecantError,
  ERROR_CODES,
  httpStatusOf,
  isErrorCode,
  maskSecrets,
  PROBLEM_MEDIA_TYPE,
  problemSchema,
  type ErrorCode,
  type Problem,
} from '@decant/core';

import { readBody, type SendOptions } from './send.ts';

/** Most bytes of an error's body that are read. */
export const MAX_PROBLEM_BYTES = 64 * 1024;
const MAX_MESSAGE_LENGTH = 4000;

/**
 * The RFC 9457 document of an error: no stack, no cause, secrets masked. What an INTERNAL error says is for
 * the server's log, so it is replaced.
 */
export function toProblem(error: DecantError): Problem {
  const { code } = error;
  const status = httpStatusOf(code);
  const title = ERROR_CODES[code].meaning;
  if (code === 'INTERNAL') {
    return { type: 'about:blank', title, status, code, detail: 'The server failed.', retryable: error.retryable };
  }
  const masked = maskSecrets({ detail: error.message, hint: error.hint ?? '' }) as { detail: string; hint: string };
  const details = plainDetails(error.details);
  return {
    type: 'about:blank',
    title,
    status,
    detail: masked.detail,
    code,
    ...(error.hint === undefined ? {} : { hint: masked.hint }),
    retryable: error.retryable,
    ...(details === undefined ? {} : { details }),
  };
}

/** The answer a server gives for an error. */
export function problemResponse(error: DecantError): Response {
  const problem = toProblem(error);
  const headers = new Headers({ 'content-type': PROBLEM_MEDIA_TYPE, 'cache-control': 'no-store' });
  if (problem.status === 401) headers.set('www-authenticate', 'Bearer');
  return new Response(JSON.stringify(problem), { status: problem.status ?? 500, headers });
}

/** The error that an answer outside 200 to 299 stands for; reads at most 64 KiB of its body. */
export async function errorOfResponse(response: Response, options: SendOptions = {}): Promise<DecantError> {
  const { status } = response;
  const redirected = response.type === 'opaqueredirect' || (status >= 300 && status < 400);
  if (redirected) {
    return new DecantError('HTTP_STATUS', 'The server answered with a redirect, which is not followed.', {
      hint: 'Give the address the server redirects to.',
      details: { status },
      retryable: false,
    });
  }
  const problem = await readProblem(response, options);
  const known = isErrorCode(problem.code) ? problem.code : undefined;
  const [code, retryable] = known === undefined ? codeOfStatus(status) : [known, undefined];
  const told = problem.detail ?? problem.title;
  return new DecantError(code, told === undefined ? `The server answered with status ${status}.` : clean(told), {
    hint: problem.hint === undefined ? hintOf(code) : clean(problem.hint),
    details: { ...problem.details, status },
    retryable: problem.retryable ?? retryable,
  });
}

/** Codes for answers that name none of ours, and whether asking again may help. */
function codeOfStatus(status: number): [ErrorCode, boolean] {
  switch (status) {
    case 401:
      return ['UNAUTHORIZED', false];
    case 403:
      return ['FORBIDDEN', false];
    case 404:
      return ['NOT_FOUND', false];
    case 409:
      return ['CONFLICT', false];
    case 413:
      return ['LIMIT_EXCEEDED', false];
    default:
      return ['HTTP_STATUS', status === 408 || status === 429 || status >= 500];
  }
}

function hintOf(code: ErrorCode): string | undefined {
  return code === 'UNAUTHORIZED' ? 'Give an API key that this server knows.' : undefined;
}

async function readProblem(response: Response, options: SendOptions): Promise<Problem> {
  let text: string;
  try {
    text = new TextDecoder().decode(await readBody(response, MAX_PROBLEM_BYTES, options));
  } catch (error) {
    options.signal?.throwIfAborted();
    // The status is known and says more than a body that cannot be read.
    void error;
    return {};
  }
  const type = response.headers.get('content-type') ?? '';
  if (!/\bjson\b/i.test(type)) return type.startsWith('text/plain') && text.trim() !== '' ? { detail: text } : {};
  try {
    return problemOf(JSON.parse(text) as unknown);
  } catch {
    return {};
  }
}

/** Problem documents, and the `{code?, message}`, `{error}` and `{error: {…}}` shapes other services answer with. */
function problemOf(value: unknown): Problem {
  const parsed = problemSchema.safeParse(value);
  if (parsed.success && (parsed.data.detail ?? parsed.data.title ?? parsed.data.code) !== undefined) {
    const { message } = parsed.data;
    if (parsed.data.detail === undefined && typeof message === 'string') return { ...parsed.data, detail: message };
    return parsed.data;
  }
  if (typeof value !== 'object' || value === null) return {};
  const { message, error } = value as { message?: unknown; error?: unknown };
  if (typeof message === 'string') return { detail: message };
  if (typeof error === 'string') return { detail: error };
  if (typeof error === 'object' && error !== null) {
    const inner = (error as { message?: unknown }).message;
    return typeof inner === 'string' ? { detail: inner } : {};
  }
  return {};
}

/** Text of another machine for a terminal: one line, no control characters, bounded. */
function clean(text: string): string {
  // oxlint-disable-next-line no-control-regex -- they are what is removed
  const plain = text.replace(/[\u0000-\u0009\u000b-\u001f\u007f-\u009f]+/g, ' ').trim();
  return plain.length > MAX_MESSAGE_LENGTH ? `${plain.slice(0, MAX_MESSAGE_LENGTH)}…` : plain;
}

/** What of the details JSON can hold; undefined when there is nothing, or it cannot be written. */
function plainDetails(details: Readonly<Record<string, unknown>>): Record<string, unknown> | undefined {
  try {
    const text = JSON.stringify(details, (_, value: unknown) => {
      if (typeof value === 'bigint') return value.toString();
      return value instanceof Uint8Array || typeof value === 'function' ? undefined : value;
    });
    if (text.length > MAX_PROBLEM_BYTES / 2) return undefined;
    const plain = JSON.parse(text) as Record<string, unknown>;
    return Object.keys(plain).length === 0 ? undefined : plain;
  } catch {
    return undefined;
  }
}
