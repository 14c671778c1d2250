/**
 * What every client here is given instead of a global: the web's `fetch`, or an embedded server's handler
 * called in process. It must not follow redirects to another origin with credentials.
 */
export type Fetch = (input: string | URL | Request, init?: RequestInit & { duplex?: 'half' }) => Promise<Response>;
