/**
 * `org/name@revision`, as the Hugging Face hub names its repositories; the revision is a branch, a tag
 * or a commit, `main` where there is none. `hf://` before it says that nothing else is meant.
 */
const REPOSITORY = /^[A-Za-z0-9][\w.-]{0,95}\/[A-Za-z0-9][\w.-]{0,95}$/;
/** Revisions become paths of files in the cache. */
const REVISION = /^[A-Za-z0-9][\w.-]*(\/[A-Za-z0-9][\w.-]*)*$/;
const SCHEME = 'hf://';

export interface HubRepository {
  /** org/name */
  repository: string;
  revision: string;
}

/** undefined = the text names none. */
export function parseHubRepository(text: string): HubRepository | undefined {
  const id = text.startsWith(SCHEME) ? text.slice(SCHEME.length) : text;
  const at = id.indexOf('@');
  const repository = at < 0 ? id : id.slice(0, at);
  const revision = at < 0 ? 'main' : id.slice(at + 1);
  if (!REPOSITORY.test(repository) || !REVISION.test(revision)) return undefined;
  if (repository.includes('..') || revision.includes('..')) return undefined;
  return { repository, revision };
}

export function isHubAddress(text: string): boolean {
  return text.startsWith(SCHEME);
}
