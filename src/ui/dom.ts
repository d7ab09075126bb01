/**
 * Elements by id, and new ones. Text is set as text alone: nothing here takes HTML, so a name is a name
 * whatever it looks like (the page's policy forbids HTML from strings besides).
 */

/** Throws where the page has none: index.html and the code belong together. */
export function byId<T extends HTMLElement = HTMLElement>(id: string): T {
  const found = document.getElementById(id);
  if (found === null) throw new Error(`index.html has no #${id}`);
  return found as T;
}

type Attributes = Record<string, string | undefined>;

export function element<NAME extends keyof HTMLElementTagNameMap>(
  name: NAME,
  attributes: Attributes = {},
  ...children: (Node | string)[]
): HTMLElementTagNameMap[NAME] {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== undefined) made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}

/** Only where it differs, so that selections and screen readers are left alone. */
export function setText(node: Node, text: string): void {
  if (node.textContent !== text) node.textContent = text;
}

export function setData(node: HTMLElement, key: string, value: string): void {
  if (node.dataset[key] !== value) node.dataset[key] = value;
}

export function setTitle(node: HTMLElement, title: string): void {
  if (node.title !== title) node.title = title;
}
