// The list of slides: only the rows in sight exist, pages of them are asked for when they come into sight.

import { askSlides } from "./api.js";

const ROW_PX = 52;
const PAGE = 200;
const WAIT_MS = 150;
const STATES = ["done", "failed", "empty", "skipped", "not yet"];

export class SlideList {
  constructor(chosen, failed) {
    this.chosen = chosen;
    this.failed = failed;
    this.rows = document.getElementById("rows");
    this.spacer = document.getElementById("spacer");
    this.count = document.getElementById("count");
    this.text = document.getElementById("text");
    this.state = document.getElementById("state");
    this.sort = document.getElementById("sort");
    this.total = 0;
    this.pages = new Map();
    this.current = "";
    this.place = -1; // of the row that the keys are at
    this.asked = 0;
    this.state.append(new Option("any", ""), ...STATES.map((state) => new Option(state, state)));
    this.rows.addEventListener("scroll", () => this.draw());
    this.rows.addEventListener("keydown", (event) => this.key(event));
    new ResizeObserver(() => this.draw()).observe(this.rows);
    for (const control of [this.state, this.sort]) control.addEventListener("change", () => this.renew());
    this.text.addEventListener("input", () => {
      clearTimeout(this.timer);
      this.timer = setTimeout(() => this.renew(), WAIT_MS);
    });
    this.text.addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === "ArrowDown") {
        event.preventDefault();
        this.rows.focus();
        this.move(0);
      }
    });
  }

  async renew() {
    this.pages.clear();
    this.asked += 1;
    this.rows.scrollTop = 0;
    this.place = -1;
    await this.load(0);
    this.draw();
  }

  async load(number) {
    if (this.pages.has(number)) return this.pages.get(number);
    const asked = this.asked;
    const query = {
      text: this.text.value, state: this.state.value, sort: this.sort.value, start: number * PAGE, count: PAGE,
    };
    const coming = askSlides(query).then((found) => {
      if (asked !== this.asked) return [];
      this.total = found.total;
      this.tell(found);
      this.pages.set(number, found.slides);
      this.draw();
      return found.slides;
    });
    this.pages.set(number, coming);
    try {
      return await coming;
    } catch (error) {
      this.pages.delete(number);
      this.failed(error);
      return [];
    }
  }

  tell(found) {
    const shown = found.total.toLocaleString("en");
    this.count.textContent = found.total === found.of ? `${shown} slide${found.of === 1 ? "" : "s"}` : `${shown} of ${found.of.toLocaleString("en")} slides`;
    for (const option of this.state.options) {
      const count = option.value ? found.states[option.value] || 0 : Object.values(found.states).reduce((a, b) => a + b, 0);
      option.textContent = `${option.value || "any"} (${count.toLocaleString("en")})`;
    }
  }

  async at(place) {
    const page = await this.load(Math.floor(place / PAGE));
    return page[place % PAGE];
  }

  draw() {
    this.spacer.style.height = `${this.total * ROW_PX}px`;
    const first = Math.max(0, Math.floor(this.rows.scrollTop / ROW_PX) - 2);
    const last = Math.min(this.total, Math.ceil((this.rows.scrollTop + this.rows.clientHeight) / ROW_PX) + 2);
    const shown = [];
    for (let place = first; place < last; place += 1) {
      const page = this.pages.get(Math.floor(place / PAGE));
      if (!page) this.load(Math.floor(place / PAGE));
      if (Array.isArray(page) && page[place % PAGE]) shown.push(this.row(page[place % PAGE], place));
    }
    this.spacer.replaceChildren(...shown);
    const active = shown.find((row) => Number(row.dataset.place) === this.place);
    if (active) this.rows.setAttribute("aria-activedescendant", active.id);
    else this.rows.removeAttribute("aria-activedescendant");
  }

  row(slide, place) {
    const row = document.createElement("div");
    row.className = "row";
    row.role = "option";
    row.id = `row-${place}`;
    row.dataset.place = place;
    row.style.top = `${place * ROW_PX}px`;
    row.setAttribute("aria-selected", String(slide.slide_id === this.current));
    row.setAttribute("aria-posinset", place + 1);
    row.setAttribute("aria-setsize", this.total);
    row.classList.toggle("active", place === this.place);
    const id = document.createElement("span");
    id.className = "id";
    id.textContent = slide.slide_id;
    const about = document.createElement("span");
    about.className = "about";
    const state = document.createElement("span");
    state.className = `state ${slide.state.replace(" ", "-")}`;
    state.textContent = slide.state + (slide.code ? `: ${slide.code}` : "");
    const more = [slide.site, slide.label, slide.tiles ? `${slide.tiles.toLocaleString("en")} tiles` : ""];
    about.append(state, ...more.filter(Boolean).map((text) => ` · ${text}`));
    row.append(id, about);
    row.title = slide.slide_id;
    row.addEventListener("click", () => {
      this.place = place;
      this.chosen(slide.slide_id);
    });
    return row;
  }

  mark(slideId) {
    this.current = slideId;
    this.draw();
  }

  key(event) {
    const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: 10, PageUp: -10, Home: -this.total, End: this.total };
    if (event.key in steps) {
      event.preventDefault();
      event.stopPropagation();
      this.move(steps[event.key]);
    } else if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      event.stopPropagation();
      this.open(Math.max(0, this.place));
    }
  }

  move(by) {
    this.place = Math.min(this.total - 1, Math.max(0, (this.place < 0 ? 0 : this.place) + by));
    this.show();
  }

  show() {
    const top = this.place * ROW_PX;
    const high = this.rows.clientHeight;
    if (top < this.rows.scrollTop) this.rows.scrollTop = top;
    else if (top + ROW_PX > this.rows.scrollTop + high) this.rows.scrollTop = top + ROW_PX - high;
    this.draw();
  }

  async open(place) {
    const slide = await this.at(place);
    if (!slide) return;
    this.place = place;
    this.show();
    this.chosen(slide.slide_id);
  }

  // The next slide of the list, or the one before: from the one in sight, wherever the keys are.
  async step(by) {
    const from = await this.placeOfCurrent();
    const place = from < 0 ? 0 : from + by;
    if (place >= 0 && place < this.total) await this.open(place);
  }

  async placeOfCurrent() {
    const near = this.place >= 0 ? await this.at(this.place) : null;
    if (near && near.slide_id === this.current) return this.place;
    for (const [number, page] of this.pages) {
      const found = Array.isArray(page) ? page.findIndex((slide) => slide.slide_id === this.current) : -1;
      if (found >= 0) return number * PAGE + found;
    }
    return -1;
  }
}
