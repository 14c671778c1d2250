/** How progress is shown: by what standard error is, as plain lines, as NDJSON events, or not at all. */
export const PROGRESS_MODES = ['auto', 'plain', 'json', 'none'] as const;
export type ProgressMode = (typeof PROGRESS_MODES)[number];
