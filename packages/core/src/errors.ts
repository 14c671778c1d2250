import { adviceOf, isErrorCode, mayPass, type ErrorCode } from './error-codes.ts';

const BRAND = Symbol.for('decant.error');

export interface DecantErrorOptions {
  /** What the reader can do about it, as one sentence; default: what the table of codes advises, for some of them. */
  readonly hint?: string | undefined;
  /** Facts for programs; secret-looking values are masked when the error is made. */
  readonly details?: Readonly<Record<string, unknown>> | undefined;
  /** Whether the same call may succeed later; default: true only for the `unavailable` family. */
  readonly retryable?: boolean | undefined;
  readonly cause?: unknown;
}

/**
 * The one error class of decant. `code` is stable and machine-readable, `message` is one sentence.
 * Recognise it with {@link isDecantError}, which also works across two installed copies of this package.
 */
export class DecantError extends Error {
  override readonly name = 'DecantError';
  readonly code: ErrorCode;
  readonly hint: string | undefined;
  readonly details: Readonly<Record<string, unknown>>;
  readonly retryable: boolean;

  constructor(code: ErrorCode, message: string, options: DecantErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    this.hint = options.hint ?? adviceOf(code);
    this.details = maskSecrets(options.details ?? {});
    this.retryable = options.retryable ?? mayPass(code);
    Object.defineProperty(this, BRAND, { value: true });
  }

  static override [Symbol.hasInstance](value: unknown): boolean {
    return isDecantError(value);
  }
}

export function isDecantError(value: unknown, code?: ErrorCode): value is DecantError {
  if (typeof value !== 'object' || value === null) return false;
  if ((value as Record<symbol, unknown>)[BRAND] !== true) return false;
  return code === undefined || (value as { code?: unknown }).code === code;
}

/** Any thrown value as a DecantError; a foreign error becomes `fallback` with the original as its cause. */
export function toDecantError(value: unknown, fallback: ErrorCode = 'INTERNAL'): DecantError {
  if (isDecantError(value)) return value;
  const errno = errnoOf(value);
  if (errno === 'ENOSPC' || errno === 'EDQUOT') {
    return new DecantError('DISK_FULL', 'No space is left on the device that decant writes to.', {
      hint: 'Free some space, or point DECANT_HOME and TMPDIR at a larger disk.',
      cause: value,
    });
  }
  const message = value instanceof Error ? value.message : String(value);
  return new DecantError(fallback, message, { cause: value });
}

/** The `code` of a Node system error (`ENOENT`, …), or undefined. */
export function errnoOf(value: unknown): string | undefined {
  const code = (value as { code?: unknown } | null | undefined)?.code;
  return typeof code === 'string' && /^E(?!RR_)[A-Z0-9_]+$/.test(code) && !isErrorCode(code) ? code : undefined;
}

const SECRET_KEY = /(secret|password|passwd|token|authorization|api[-_]?key|credential|signature)/i;

/** A copy in which values under secret-looking keys keep four characters at most and signed URLs lose their query. */
export function maskSecrets(details: Readonly<Record<string, unknown>>): Readonly<Record<string, unknown>> {
  return maskValue(details, 0) as Record<string, unknown>;
}

function maskValue(value: unknown, depth: number): unknown {
  if (typeof value === 'string') return value.replace(/(https?:\/\/[^\s?"]+)\?[^\s"]*X-Amz-Signature=[^\s"]*/g, '$1?…');
  if (depth > 8 || typeof value !== 'object' || value === null || value instanceof Uint8Array) return value;
  if (Array.isArray(value)) return value.map((item) => maskValue(item, depth + 1));
  const masked: Record<string, unknown> = {};
  for (const [key, item] of Object.entries(value)) {
    masked[key] =
      SECRET_KEY.test(key) && typeof item === 'string' ? `${item.slice(0, 4)}…` : maskValue(item, depth + 1);
  }
  return masked;
}
