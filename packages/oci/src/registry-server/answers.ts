/** Error codes of the OCI distribution specification 1.1, with their usual statuses. */
const STATUS = {
  BLOB_UNKNOWN: 404,
  BLOB_UPLOAD_INVALID: 400,
  BLOB_UPLOAD_UNKNOWN: 404,
  DENIED: 403,
  DIGEST_INVALID: 400,
  MANIFEST_BLOB_UNKNOWN: 404,
  MANIFEST_INVALID: 400,
  MANIFEST_UNKNOWN: 404,
  NAME_INVALID: 400,
  NAME_UNKNOWN: 404,
  SIZE_INVALID: 413,
  RANGE_INVALID: 416,
  TOOMANYREQUESTS: 429,
  UNAUTHORIZED: 401,
  UNSUPPORTED: 405,
  TAG_INVALID: 400,
} as const;

export type RegistryErrorCode = keyof typeof STATUS;

/** An answer that is an error, in the form that the specification gives it. */
export class RegistryProblem extends Error {
  readonly code: RegistryErrorCode;
  readonly headers: Readonly<Record<string, string>>;

  constructor(code: RegistryErrorCode, message: string, headers: Readonly<Record<string, string>> = {}) {
    super(message);
    this.code = code;
    this.headers = headers;
  }

  toResponse(): Response {
    return errorResponse(STATUS[this.code], this.code, this.message, this.headers);
  }
}

export function errorResponse(
  status: number,
  code: string,
  message: string,
  headers: Readonly<Record<string, string>> = {},
): Response {
  return jsonResponse({ errors: [{ code, message }] }, { status, headers });
}

export function jsonResponse(
  body: unknown,
  options: {
    readonly status?: number;
    readonly headers?: Readonly<Record<string, string>>;
    readonly mediaType?: string;
  } = {},
): Response {
  const bytes = new TextEncoder().encode(JSON.stringify(body));
  const headers = { 'content-type': options.mediaType ?? 'application/json', 'content-length': String(bytes.length) };
  return new Response(bytes, { status: options.status ?? 200, headers: { ...headers, ...options.headers } });
}
