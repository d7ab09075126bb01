/** The example's page in a real Chromium: what a person sees and does there. */
import { type Browser, type Page, chromium } from 'playwright-core';

const SIDES = ['left', 'right'] as const;
export type SideName = (typeof SIDES)[number];

/** Background requests of the browser itself have nowhere to go on a machine without a network. */
const QUIET = [
  ...['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-sync'],
  ...['--disable-background-networking', '--disable-component-update'],
];

export function launchChromium(executablePath: string): Promise<Browser> {
  return chromium.launch({ executablePath, args: QUIET });
}

export class ChatPage {
  readonly page: Page;
  /** What a developer would find in the browser's console. */
  readonly errors: string[] = [];

  static async open(browser: Browser, url: string): Promise<ChatPage> {
    const page = await browser.newPage();
    page.setDefaultTimeout(20_000);
    const chat = new ChatPage(page);
    await page.goto(url);
    await chat.engineIsUp();
    return chat;
  }

  private constructor(page: Page) {
    this.page = page;
    page.on('pageerror', (error) => this.errors.push(error.message));
    page.on('console', (message) => {
      if (message.type() === 'error') this.errors.push(message.text());
    });
  }

  /** Hydrated, and /api/status has answered. */
  async engineIsUp(): Promise<void> {
    await this.page.getByRole('list', { name: 'Adapters' }).waitFor();
  }

  async choose(side: SideName, adapter: string): Promise<void> {
    await this.page.getByLabel(`${side} adapter`).selectOption(adapter);
  }

  /** Until the question stands in both conversations. */
  async ask(question: string, { endless = false } = {}): Promise<void> {
    const asked = this.page.locator('article.user');
    const before = await asked.count();
    await this.page.getByLabel('endless').setChecked(endless);
    await this.page.getByLabel('Question').fill(question);
    await this.page.getByRole('button', { name: 'Ask' }).click();
    await asked.nth(before + 1).waitFor();
  }

  async stop(): Promise<void> {
    await this.page.getByRole('button', { name: 'Stop' }).click();
  }

  /** Until both sides have answered, or have been stopped. */
  async answered(): Promise<void> {
    for (const side of SIDES) {
      const newest = this.#section(side).locator('article:last-of-type');
      await newest.and(this.page.locator('[aria-busy=false] article.assistant')).waitFor();
    }
  }

  /** Until both newest answers are that long. */
  async bothHave(characters: number): Promise<void> {
    for (const side of SIDES) {
      const answer = this.#section(side).locator('article.assistant:last-of-type p');
      await answer.filter({ hasText: new RegExp(`.{${characters}}`, 's') }).waitFor();
    }
  }

  /** All answers of one side, oldest first. */
  answers(side: SideName): Promise<string[]> {
    return this.#section(side).locator('article.assistant p').allTextContents();
  }

  /** What stands below them: the adapter, and how fast it was. */
  labels(side: SideName): Promise<string[]> {
    return this.#section(side).locator('article.assistant footer').allTextContents();
  }

  /** Adapters by the state that their light shows. */
  adaptersThatAre(state: 'active' | 'resident' | 'loaded'): Promise<string[]> {
    return this.page.locator(`[aria-label=Adapters] li.${state}`).allTextContents();
  }

  #section(side: SideName) {
    return this.page.getByRole('region', { name: `${side} answers` });
  }
}
