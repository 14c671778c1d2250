export {
  followEvents,
  MAX_EVENT_CHARACTERS,
  readEvents,
  type FollowOptions,
  type ReadEventsOptions,
  type ServerSentEvent,
} from './event-stream.ts';
export {
  createHttpClient,
  DEFAULT_MAX_JSON_BYTES,
  MAX_RETRY_AFTER_MS,
  retryAfterMs,
  type BodySchema,
  type HttpClient,
  type HttpClientOptions,
  type HttpMethod,
  type RequestOptions,
} from './http-client.ts';
export { errorOfResponse, MAX_PROBLEM_BYTES, problemResponse, toProblem } from './problem.ts';
export { DEFAULT_TIMEOUT_MS, discardBody, readBody, send, type SendOptions } from './send.ts';
