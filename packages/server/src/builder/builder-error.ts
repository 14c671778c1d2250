import { httpStatusOf, type BuilderError, type DecantError } from '@decant/core';
import { toProblem } from '@decant/transport';

/** Paths whose contract fixes this shape of errors. */
const PATHS = /^\/(builds|v1\/(snapshots|snapshot-aliases|container-registries|authorize))(\/|$)/;

export function hasBuilderErrors(path: string): boolean {
  return PATHS.test(path);
}

/**
 * The answer for an error in the form `{code, message, errors}`, with the members of decant's own problem documents
 * beside it, so that decant's clients get the same error from every route.
 */
export function builderErrorResponse(error: DecantError): Response {
  const problem = toProblem(error);
  const message = problem.detail ?? error.message;
  const parameter = parameterOf(error);
  const body: BuilderError = {
    ...problem,
    code: error.code,
    message,
    errors: [{ ...(parameter === undefined ? {} : { parameter }), code: error.code, message, details: {} }],
  };
  const status = error.code === 'BUILD_QUEUE_FULL' ? 429 : httpStatusOf(error.code);
  const headers = new Headers({ 'content-type': 'application/json', 'cache-control': 'no-store' });
  if (status === 401) headers.set('www-authenticate', 'Bearer');
  return new Response(JSON.stringify({ ...body, status }), { status, headers });
}

function parameterOf({ details }: DecantError): string | undefined {
  const path = details['path'];
  return Array.isArray(path) && path.length > 0 ? path.map(String).join('.') : undefined;
}
