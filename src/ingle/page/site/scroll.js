// The scrolling middle. A reader at the end stays there while an answer grows; a reader further up is not moved.

import { Component, html, icon } from "./parts.js";

const NEAR = 48; // pixels that still count as being at the end

export class Scroll extends Component {
  state = { near: true };

  componentDidMount() {
    this.last = 0;
    this.observer = new ResizeObserver(() => {
      if (this.below) [this.box.scrollTop, this.below] = [this.box.scrollHeight - this.below, 0];
      else if (this.state.near) this.follow();
    });
    this.observer.observe(this.inner);
    this.observer.observe(this.box);
    this.follow();
  }

  follow() {
    // The start and an explanation are read from their beginning.
    if (!this.inner.querySelector(".welcome, .turns > :last-child .why")) this.toEnd();
  }

  toEnd() {
    this.box.scrollTop = this.box.scrollHeight;
  }

  look = () => {
    const { scrollTop, scrollHeight, clientHeight } = this.box;
    const atEnd = scrollHeight - scrollTop - clientHeight < NEAR;
    // Growing text leaves the end behind without anybody having scrolled: only going up means it.
    if (atEnd) this.setState({ near: true });
    else if (scrollTop < this.last) this.setState({ near: false });
    this.last = scrollTop;
  };

  more = () => {
    this.below = this.box.scrollHeight - this.box.scrollTop; // what one reads now is to stay where it is
    this.setState({ near: false });
    this.props.more();
  };

  end = () => {
    this.setState({ near: true });
    this.toEnd();
  };

  render({ earlier, children }, { near }) {
    return html`
      <div class="middle">
        <div class="scroll" ref=${(box) => (this.box = box)} tabindex="-1" onScroll=${this.look}>
          <div class="inner" ref=${(inner) => (this.inner = inner)}>
            ${earlier && html`<button class="quiet older" type="button" onClick=${this.more}>Show earlier messages</button>`}
            ${children}
          </div>
        </div>
        <button class="down" type="button" aria-label="Go to the end" title="Go to the end" style=${{ display: near ? "none" : "" }} onClick=${this.end}>${icon("down")}</button>
      </div>`;
  }
}
