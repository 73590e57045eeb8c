package seccomp

import (
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/net/bpf"
)

// target is where a test on an argument goes on.
type target int

const (
	next    target = iota // the following instruction
	matched               // the end of this condition: it holds
	failed                // the end of the rule: it does not match
)

// argStep is a load (or an and) in front of a test; BPF has 32-bit words, so a 64-bit condition needs several.
type argStep struct {
	load   []bpf.Instruction
	test   bpf.JumpTest
	val    uint32
	yes    target
	no     target
	isTest bool
}

// compileRule returns the rule's action if all conditions hold, and falls off its end otherwise.
func compileRule(r argRule) []bpf.Instruction {
	type item struct {
		step argStep
		end  int // of the condition it belongs to
	}
	var items []item
	for _, a := range r.args {
		steps := flatten(condition(a))
		end := len(items) + len(steps)
		for _, s := range steps {
			items = append(items, item{s, end})
		}
	}
	skip := func(at int, it item, t target) uint8 {
		switch t {
		case matched:
			return uint8(it.end - at - 1)
		case failed:
			return uint8(len(items) + 1 - at - 1)
		}
		return 0
	}
	out := make([]bpf.Instruction, 0, len(items)+1)
	for i, it := range items {
		if !it.step.isTest {
			out = append(out, it.step.load[0])
			continue
		}
		out = append(out, bpf.JumpIf{Cond: it.step.test, Val: it.step.val, SkipTrue: skip(i, it, it.step.yes), SkipFalse: skip(i, it, it.step.no)})
	}
	return append(out, bpf.RetConstant{Val: r.ret})
}

// flatten makes every load a step of its own, so that positions can be counted.
func flatten(steps []argStep) []argStep {
	var out []argStep
	for _, s := range steps {
		for _, l := range s.load {
			out = append(out, argStep{load: []bpf.Instruction{l}})
		}
		s.load, s.isTest = nil, true
		out = append(out, s)
	}
	return out
}

// condition compares a 64-bit argument, unsigned, its high word first.
func condition(a specs.LinuxSeccompArg) []argStep {
	off := uint32(dataArgs + 8*a.Index)
	lowWord, highWord := []bpf.Instruction{bpf.LoadAbsolute{Off: off, Size: 4}}, []bpf.Instruction{bpf.LoadAbsolute{Off: off + 4, Size: 4}}
	low, high := uint32(a.Value), uint32(a.Value>>32)
	greater := []argStep{
		{load: highWord, test: bpf.JumpGreaterThan, val: high, yes: matched},
		{test: bpf.JumpEqual, val: high, no: failed},
	}
	less := []argStep{
		{load: highWord, test: bpf.JumpGreaterThan, val: high, yes: failed},
		{test: bpf.JumpEqual, val: high, no: matched},
	}
	switch a.Op {
	case specs.OpEqualTo:
		return []argStep{{load: highWord, test: bpf.JumpEqual, val: high, no: failed}, {load: lowWord, test: bpf.JumpEqual, val: low, no: failed}}
	case specs.OpNotEqual:
		return []argStep{{load: highWord, test: bpf.JumpEqual, val: high, no: matched}, {load: lowWord, test: bpf.JumpEqual, val: low, yes: failed}}
	case specs.OpMaskedEqual:
		highWord = append(highWord, bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: high})
		lowWord = append(lowWord, bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: low})
		return []argStep{
			{load: highWord, test: bpf.JumpEqual, val: uint32(a.ValueTwo >> 32), no: failed},
			{load: lowWord, test: bpf.JumpEqual, val: uint32(a.ValueTwo), no: failed},
		}
	case specs.OpGreaterThan:
		return append(greater, argStep{load: lowWord, test: bpf.JumpGreaterThan, val: low, no: failed})
	case specs.OpGreaterEqual:
		return append(greater, argStep{load: lowWord, test: bpf.JumpGreaterOrEqual, val: low, no: failed})
	case specs.OpLessThan:
		return append(less, argStep{load: lowWord, test: bpf.JumpGreaterOrEqual, val: low, yes: failed})
	default: // specs.OpLessEqual; abiVerdicts has refused what is none of these
		return append(less, argStep{load: lowWord, test: bpf.JumpGreaterThan, val: low, yes: failed})
	}
}

// knownOperator says whether condition understands op.
func knownOperator(op specs.LinuxSeccompOperator) bool {
	switch op {
	case specs.OpEqualTo, specs.OpNotEqual, specs.OpMaskedEqual, specs.OpGreaterThan, specs.OpGreaterEqual, specs.OpLessThan, specs.OpLessEqual:
		return true
	}
	return false
}
